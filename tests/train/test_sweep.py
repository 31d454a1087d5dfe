"""python -m train.sweep: runs with several seeds and settings."""

import csv

import pytest

from train import report, sweep

SMALL = "--set=model.name=resnet8_an", "--set=steps=10", "--set=steps_per_loop=5"


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--recipe=digits"], "Expected --workdir=VALUE"),
        (["--workdir=a"], "at least one --recipe=NAME"),
        (["--workdir=a", "--recipe=digit"], "Unknown recipe"),
        (["--workdir=a", "--recipe=digits", "--seed=0,x"], "Received: 0,x"),
        (["--workdir=a", "--recipe=digits", "--seed="], "Received: none"),
        (["--workdir=a", "--recipe=digits", "--set=seed=1"], "Expected --seed=0,1,2"),
        (["--workdir=a", "--recipe=digits", "--", "--steps=9"], "--set=FIELD=VALUE"),
        (["--workdir=a", "--recipe=digits", "other"], "Received: other"),
        (["--workdir=a", "--recipe=digits", "--vary=epoch=1"], "Unknown recipe field"),
        (["--workdir=a", "--recipe=digits", "--processes=0"], "processes"),
    ],
)
def test_wrong_flags_are_usage_errors_before_anything_starts(
    given, expected, call, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert expected in call(sweep, *given, expected=2).stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_go_on_when_one_fails_and_are_skipped_when_done(tmp_path, data_dir, call):
    directory = tmp_path / "sweep"
    rates = (f"--vary=optimizer.learning_rate={rate}" for rate in (0.1, 1e6))
    flags = [f"--workdir={directory}", f"--data_dir={data_dir}", "--recipe=digits"]
    flags += [*SMALL, *rates, "--seed=0,1", "--processes=2"]
    done = call(sweep, *flags, expected=1)
    assert "2 of 4 runs failed: digits-learning_rate=1000000.0-seed0" in done.stderr
    assert done.stdout.startswith("4 runs, 0 of them are done\n")
    rows = read(directory / "sweep.csv")
    assert [(row["seed"], row["status"]) for row in rows] == [
        *(("0", "done"), ("0", "failed"), ("1", "done"), ("1", "failed"))
    ]
    good, bad, *_ = rows
    assert good["variation"] == "optimizer.learning_rate=0.1" and good["error"] == ""
    assert 0 < float(good["top1"]) <= 1 and good["images"] == "355"
    assert "exit code 1: error: Training diverged" in bad["error"] and not bad["top1"]
    again = call(sweep, *flags, expected=1)
    assert again.stdout.startswith("4 runs, 2 of them are done\n")
    assert again.stdout.count("started") == 2
    page = tmp_path / "page.html"
    shown = call(report, directory, f"--data_dir={data_dir}", f"--html={page}").stdout
    assert "left out, not finished: " in shown and "0, 1" in shown
    assert "<h1>2 runs on digits</h1>" in page.read_text()
    others = [each for each in flags if "vary" not in each]
    refused = call(
        sweep,
        *others,
        "--set=epochs=3",
        "--set=steps=11",
        "--vary=optimizer.learning_rate=0.1",
        expected=1,
    )
    assert "belongs to a run with other settings" in refused.stderr
