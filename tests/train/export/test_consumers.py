"""Third-party programs give the same answers as the Keras model."""

import csv

import pytest
from consumers import NETWORKS

from train.export import compare, runtimes

IN_TENSORFLOW = ["TensorFlow without Keras", "C program"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long) for n in ("resnet8_an", *NETWORKS)],
)
def test_every_runtime_agrees_with_the_model(name, command, tmp_path):
    """Runs in a separate process, because converters take gigabytes."""
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
