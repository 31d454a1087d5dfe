"""The report on finished runs."""

import csv
import dataclasses
import json
import shutil
import types

import pytest

from train import recipes, report
from train.cli import RunError
from train.engine import run_directory

RESULTS = {
    "model": "resnet20_an",
    "parameters": 10,
    "top1": 0.5,
    "images": 100,
    "loss": 1.0,
    "step": 9,
    "sha256": "ab",
}


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Makes the parts of a finished run's directory that the report reads."""
    recipe = recipes.create_recipe("digits")

    def spec(run):
        return types.SimpleNamespace(
            recipe=dataclasses.replace(recipe, seed=len(run.name)),
            fingerprint="other" if "other" in run.name else "digits",
            replicas=1,
        )

    monkeypatch.setattr(run_directory, "read_spec", spec)
    monkeypatch.chdir(tmp_path)

    def make(name, **changes):
        run = tmp_path / name
        (run / "export" / "9" / "assets").mkdir(parents=True)
        (run / "export" / "9" / "saved_model.pb").touch()
        card = {"sha256": RESULTS["sha256"], "test": RESULTS}
        (run / "export" / "9" / "assets" / "model.json").write_text(json.dumps(card))
        (run / "results.json").write_text(json.dumps(RESULTS | changes))
        return run

    return make


class _Flags(dict):
    """Flags that were not given, by name and as attributes."""

    def __getattr__(self, name):
        return self.get(name)

    def __getitem__(self, name):
        return types.SimpleNamespace(present=False, value=dict.get(self, name))


@pytest.fixture
def show(monkeypatch):
    def run(*runs, table=None):
        given = {"svm": False, "csv": table, "data_dir": None, "html": None}
        values = _Flags(given | {"corruption": [], "severity": [1], "images": None})
        monkeypatch.setattr(report.flags, "FLAGS", values)
        report.main([str(run) for run in runs])

    return run


def test_runs_with_similar_names_stay_distinct(make_run, show, capsys, tmp_path):
    names = ["digits[lr=0.1]", "digits[lr=0.2]", "a/digits", "b/digits", "[/run]"]
    for name in names:
        make_run(name)
    show(*names, table=str(tmp_path / "a.csv"))
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        assert sum(line.startswith(f"│ {name} ") for line in lines) == 1
        assert f"SavedModel of {name}: {name}/export/9" in lines
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == names


def test_tensorboard_starts_at_the_common_parent_of_runs(
    make_run, show, capsys, tmp_path
):
    make_run("my runs/a")
    make_run("my runs/more/b")
    show("my runs/more/b", "my runs/more/../a")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"curves: tensorboard --logdir '{tmp_path}/my runs'"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Received: JSONDecodeError"),
        ("{", "Received: JSONDecodeError"),
        ("[" * 100_000, "Received: "),
        ("[]", "Received: AttributeError"),
        ("null", "Received: AttributeError"),
        (json.dumps({**RESULTS, "top1": float("nan")}), "top1 nan"),
        (json.dumps({**RESULTS, "loss": float("inf")}), "loss inf"),
        (json.dumps({**RESULTS, "step": 10**400}), "step 1000"),
        (json.dumps({**RESULTS, "top1": "0.5"}), "Received: TypeError"),
        (json.dumps({**RESULTS, "model": ["a"]}), "model .'a'."),
        (json.dumps({**RESULTS, "top5": "0.5"}), "Received: TypeError"),
        (json.dumps({**RESULTS, "images": None}), "Received: TypeError"),
        (
            json.dumps({k: RESULTS[k] for k in ("model", "top1")}),
            "KeyError.'parameters'",
        ),
    ],
)
def test_damaged_results_are_reported(make_run, text, words):
    run = make_run("digits")
    (run / "results.json").write_text(text)
    with pytest.raises(RunError, match=f"results.json is damaged. Expected .*{words}"):
        run_directory.read_results(run)


def test_binary_results_are_reported_as_damaged(make_run):
    run = make_run("digits")
    (run / "results.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="results.json is damaged.*UnicodeDecodeError"):
        run_directory.read_results(run)


def test_unwritable_table_is_an_error(make_run, show, tmp_path):
    run = make_run("digits")
    with pytest.raises(RunError, match="cannot hold a table"):
        show(run, table=str(tmp_path))
    with pytest.raises(OSError, match="No such file or directory"):
        show(run, table=str(tmp_path / "no" / "a.csv"))


def test_results_that_differ_from_the_export_are_refused(make_run, show):
    run = make_run("digits", top1=0.99)
    with pytest.raises(RunError, match="differ in top1. Expected 0.5.*Received: 0.99"):
        show(run)


def test_results_of_another_step_are_refused(make_run):
    run = make_run("digits", step=8.5)
    with pytest.raises(RunError, match="Expected step 9. Received: 8.5"):
        run_directory.read_results(run, sha256="ab", step=9)


def test_runs_keep_their_names_in_the_table(make_run, show, tmp_path):
    run = make_run("digits", run="other")
    shutil.rmtree(run / "export" / "9" / "assets")
    shutil.move(run / "export" / "9", run / "export" / "10")
    show("digits", table=str(tmp_path / "a.csv"))
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["digits"]


def test_runs_that_differ_in_their_seeds_have_a_row_of_means(make_run, show, capsys):
    for name, top1 in (("a", 0.5), ("bb", 0.5), ("ccc", 0.5)):
        make_run(name, top1=top1)
    show("a", "bb", "ccc")
    shown = capsys.readouterr().out
    assert "│ resnet20_an │ 1, 2, 3 │ 0.5000 ± 0.0000 " in shown


def test_runs_on_other_images_are_refused(make_run, show, capsys):
    make_run("digits"), make_run("other")
    with pytest.raises(RunError, match="Runs with different images cannot be compared"):
        show("digits", "other")
    assert capsys.readouterr().out == ""


def test_sweep_stands_for_its_finished_runs(make_run, show, capsys, tmp_path):
    for name in ("sweep/a", "sweep/bb", "sweep/ccc"):
        run = make_run(name)
        (run / "config.json").touch()
    (tmp_path / "sweep" / "logs").mkdir()
    (tmp_path / "sweep" / "ccc" / "results.json").unlink()
    show("sweep")
    shown = capsys.readouterr().out
    assert (
        "│ sweep/a " in shown and "│ sweep/bb " in shown and "│ sweep/ccc" not in shown
    )
    assert "left out, not finished: sweep/ccc" in shown


def test_sweep_without_a_finished_run_is_an_error(make_run, show, tmp_path):
    (make_run("sweep/a") / "config.json").touch()
    (tmp_path / "sweep" / "a" / "results.json").unlink()
    with pytest.raises(RunError, match="sweep has no finished run.*Received: a."):
        show("sweep")


def test_page_is_written_for_a_run(short_run, data_dir, tmp_path, call):
    page = tmp_path / "page.html"
    given = str(short_run[0]), f"--data_dir={data_dir}", f"--html={page}"
    corrupted = "--corruption=contrast", "--severity=2", "--images=20"
    done = call(report, *given, *corrupted)
    text = page.read_text()
    assert f"page in {page}" in done.stdout and text.startswith("<!doctype html>")
    assert "<h1>1 run on digits</h1>" in text and "resnet8_an" in text
    for title in ("Curves", "Robustness", "Confusions", "Attention", "Runs"):
        assert f"<h2>{title}" in text
    assert "Paired" not in text


def test_corruptions_need_a_page(short_run, call):
    done = call(report, str(short_run[0]), "--corruption=fog", expected=2)
    assert "Expected --corruption with --html only" in done.stderr
    done = call(report, str(short_run[0]), "--images=3", expected=2)
    assert "Expected --images with --corruption only" in done.stderr


def test_equal_runs_have_no_means(make_run, show, capsys):
    for name in ("a", "b"):  # equal seeds
        make_run(name)
    show("a", "b", "./a")
    shown = capsys.readouterr().out
    assert "no means: some runs have equal recipes and seeds" in shown
    assert shown.count("│ a ") == 1 and "±" not in shown
