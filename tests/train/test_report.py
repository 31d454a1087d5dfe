"""Finished runs side by side."""

import csv
import json
import types

import pytest

from train import fingerprint, report
from train.command import RunError

RESULTS = {
    "model": "resnet20_an",
    "parameters": 10,
    "top1": 0.5,
    "loss": 1.0,
    "step": 9,
}


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Makes the directory of a finished run, as far as the report looks at it."""
    monkeypatch.setattr(report.fingerprint, "read_facts", lambda run: None)
    monkeypatch.chdir(tmp_path)

    def make(name, **changes):
        run = tmp_path / name
        (run / "export" / "9").mkdir(parents=True)
        (run / "export" / "9" / "saved_model.pb").touch()
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


def test_runs_of_similar_names_are_told_apart(make_run, show, capsys, tmp_path):
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


def test_curves_are_below_the_parent_of_all_runs(make_run, show, capsys, tmp_path):
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
        ("[]", "Received: TypeError"),
        ("null", "Received: TypeError"),
        (json.dumps({**RESULTS, "top1": float("nan")}), "top1 nan"),
        (json.dumps({**RESULTS, "loss": float("inf")}), "loss inf"),
        (json.dumps({**RESULTS, "step": 10**400}), "step 1000"),
        (json.dumps({**RESULTS, "top1": "0.5"}), "Received: TypeError"),
        (json.dumps({**RESULTS, "model": ["a"]}), "model .'a'."),
        (
            json.dumps({k: RESULTS[k] for k in ("model", "top1")}),
            "KeyError.'parameters'",
        ),
    ],
)
def test_damaged_results_are_named(make_run, text, words):
    run = make_run("digits")
    (run / "results.json").write_text(text)
    with pytest.raises(RunError, match=f"results.json is damaged. Expected .*{words}"):
        fingerprint.read_results(run)


def test_results_that_are_no_text_are_damaged(make_run):
    run = make_run("digits")
    (run / "results.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="results.json is damaged.*UnicodeDecodeError"):
        fingerprint.read_results(run)


def test_an_unwritable_table_is_an_error(make_run, show, tmp_path):
    run = make_run("digits")
    with pytest.raises(RunError, match="takes no table"):
        show(run, table=str(tmp_path))
    with pytest.raises(OSError, match="No such file or directory"):
        show(run, table=str(tmp_path / "no" / "a.csv"))
