"""When a run evaluates its validation images."""

import itertools

import pytest

from train.engine import loop


@pytest.mark.parametrize(
    ("interval", "steps", "step", "evaluated", "expected"),
    [
        (20, 60, 0, 0, [20, 40, 60]),
        (20, 50, 0, 0, [20, 40, 50]),
        (20, 50, 20, 0, [20, 40, 50]),
        (20, 50, 20, 20, [40, 50]),
        (20, 50, 30, 20, [40, 50]),
        (20, 50, 50, 40, [50]),
        (20, 50, 50, 50, []),
        (70, 50, 0, 0, [50]),
    ],
)
def test_evaluations_happen_at_intervals_and_at_the_end(
    interval, steps, step, evaluated, expected
):
    assert [*loop.steps_to_evaluate_at(interval, steps, step, evaluated)] == expected


def test_run_of_many_steps_starts_at_once():
    steps = loop.steps_to_evaluate_at(50, 2**40, 2**39, 2**39)
    assert [*itertools.islice(steps, 2)] == [549755813900, 549755813950]
