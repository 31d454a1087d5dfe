"""The README's programs run, in the order in which a reader meets them."""

import csv
import importlib
import inspect
import re
import statistics

from conftest import ROOT

README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_programs_of_the_readme_run(tmp_path, monkeypatch):
    assert len(PROGRAMS) == 5
    monkeypatch.chdir(tmp_path)
    for program in PROGRAMS:
        exec(compile(program, "README.md", "exec"), {})


def test_flags_of_the_readme_exist():
    called = re.findall(r"^python -m (train(?:\.\w+)?) (.*)", README, re.MULTILINE)
    assert {name for name, _ in called} >= {"train", "train.evaluate", "train.export"}
    for name, arguments in called:
        name = "train.__main__" if name == "train" else name
        known = inspect.getsource(importlib.import_module(name).define_flags)
        for flag in re.findall(r"--(\w+)", arguments):
            assert f'"{flag}"' in known, (name, flag)


def test_results_are_those_of_the_files():
    files = sorted((ROOT / "results").glob("*.csv"))
    tables = [csv.DictReader(file.read_text().splitlines()) for file in files]
    rows = [row for table in tables for row in table]
    assert len(rows) == 6
    for row in rows:
        cells = (
            f"`{row['model']}` | {int(row['parameters']):,} | {float(row['top1']):.4f}"
        )
        assert cells in README


def test_speed_table_is_that_of_the_files():
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
