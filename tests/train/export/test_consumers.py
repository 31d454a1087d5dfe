"""Programs that are not ours answer what the Keras model answers."""

import csv

import pytest
from consumers import NETWORKS

from train.export import compare, runtimes

OFTEN = {"resnet20_an": pytest.mark.slow}
IN_TENSORFLOW = ["TensorFlow without Keras", "C program"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=OFTEN.get(name, pytest.mark.long)) for name in NETWORKS],
)
def test_every_runtime_answers_as_the_model(name, command, tmp_path):
    """In a process of its own: converters take gigabytes."""
    table = tmp_path / "consumers.csv"
    program = ("tests/consumers.py", tmp_path / "exports", table, name)
    command(*program, env={"PYTHONPATH": "."})
    rows = list(csv.DictReader(table.read_text().splitlines()))
    received = [(row["precision"], row["consumer"]) for row in rows]
    assert received == [
        *(("float32", consumer) for consumer in (*IN_TENSORFLOW, *runtimes.OTHERS)),
        *(("mixed_bfloat16", consumer) for consumer in IN_TENSORFLOW),
    ]
    for row in rows[: len(IN_TENSORFLOW) + len(runtimes.OTHERS)]:
        assert float(row["difference"]) <= compare.TOLERANCES["float32"], row
