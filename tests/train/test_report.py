"""The report on finished runs."""

import csv
import json
import shutil
import types

import pytest

from train import report
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
    monkeypatch.setattr(report.run_directory, "read_spec", lambda run: None)
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


@pytest.fixture
def show(monkeypatch):
    def run(*runs, table=None):
        values = types.SimpleNamespace(svm=False, csv=table, data_dir=None)
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
