"""The programs, flags and numbers in the README are correct."""

import csv
import importlib
import re
import statistics

import pytest
from absl.flags import FLAGS
from conftest import ROOT

README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TRAINING = [program for program in PROGRAMS if ".fit(" in program]


def run(programs):
    for program in programs:
        exec(compile(program, "README.md", "exec"), {})


def test_readme_programs_run(tmp_path, monkeypatch):
    assert len(PROGRAMS) == 5 and len(TRAINING) == 1
    monkeypatch.chdir(tmp_path)
    run(program for program in PROGRAMS if program not in TRAINING)


@pytest.mark.slow
def test_readme_training_runs():
    run(TRAINING)


def test_readme_flags_exist():
    called = re.findall(r"^python -m (train(?:\.\w+)?) (.*)", README, re.MULTILINE)
    assert {name for name, _ in called} >= {"train", "train.evaluate", "train.export"}
    for name, arguments in called:
        name += ".__main__" if name in ("train", "train.export") else ""
        before = {*FLAGS}
        importlib.import_module(name).define_flags()
        known = {*FLAGS} - before
        for flag in known:
            delattr(FLAGS, flag)
        assert {*re.findall(r"--(\w+)", arguments)} <= known, name


def test_readme_results_match_the_files():
    files = sorted((ROOT / "results").glob("*.csv"))
    tables = [csv.DictReader(file.read_text().splitlines()) for file in files]
    rows = [row for table in tables for row in table]
    assert len(rows) == 6
    for row in rows:
        cells = (
            f"`{row['model']}` | {int(row['parameters']):,} | {float(row['top1']):.4f}"
        )
        assert cells in README


def test_readme_serving_table_matches_the_file():
    text = (ROOT / "results/serving/serve.csv").read_text()
    ratios = {
        row["case"]: float(row["ratio"])
        for row in csv.DictReader(text.splitlines())
        if (row["phase"], row["variant"], row["reference"]) == ("p50", "AN", "BN")
    }
    runtimes = ("saved_model", "litert", "onnx", "openvino")
    for network in {case.partition(",")[0] for case in ratios}:
        cells = [
            f"{ratios[f'{network}, {runtime}, batch {batch}']:.2f}"
            for batch in (1, 16)
            for runtime in runtimes
        ]
        assert f"| {network} | {' | '.join(cells)} |" in README
    text = (ROOT / "results/serving/consumers.csv").read_text()
    largest = {}
    for row in csv.DictReader(text.splitlines()):
        difference = float(row["difference"])
        old = largest.setdefault(row["precision"], difference)
        largest[row["precision"]] = max(old, difference)
    assert f"at most {largest['float32']:.1e}. In" in README
    assert f"at most {largest['mixed_bfloat16']:.1e} (" in README


def test_readme_speed_table_matches_the_files():
    def read(name):
        text = (ROOT / f"results/benchmark/{name}.csv").read_text()
        return list(csv.DictReader(text.splitlines()))

    def ratios(rows, **which):
        return [
            float(row["ratio"])
            for row in rows
            if all(row[key] == value for key, value in which.items())
        ]

    layer, network = read("layer"), read("network")
    for variant in {row["variant"] for row in layer}:
        training, inference = (
            statistics.geometric_mean(ratios(layer, variant=variant, phase=phase))
            for phase in ("training", "inference")
        )
        assert f" | {training:.2f} | {inference:.2f} |" in README
    columns = (
        ("AN", "training"),
        ("AN", "inference"),
        ("AN", "parameters"),
        ("AN", "peak memory"),
        ("Keras BN", "training"),
    )
    for case in {row["case"] for row in network}:
        cells = [case]
        for variant, phase in columns:
            (ratio,) = ratios(network, case=case, variant=variant, phase=phase)
            cells.append(f"{ratio:.2f}")
        assert f"| {' | '.join(cells)} |" in README
