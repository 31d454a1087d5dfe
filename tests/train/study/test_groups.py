"""Groups of runs and their statistics."""

import dataclasses
import pathlib

import numpy as np
import pytest

from train import recipes
from train.cli import RunError
from train.engine import run_directory
from train.study import groups


def a_run(seed=0, model="resnet20_an", top1=0.5, fingerprint="a", **fields):
    recipe = recipes.create_recipe("digits")
    network = dataclasses.replace(recipe.model, name=model)
    recipe = dataclasses.replace(recipe, seed=seed, model=network, **fields)
    spec = run_directory.RunSpec(recipe, 1, (8, 8, 1), ("0", "1"), {}, fingerprint)
    place = pathlib.Path(f"{model}{seed}")
    return groups.FinishedRun(place, spec, {"top1": top1, "loss": 1.0})


def test_runs_are_grouped_by_everything_but_their_seeds():
    runs = [a_run(3), a_run(1, "resnet20_bn"), a_run(1), a_run(2, "resnet20_bn")]
    one, other = groups.group(runs)
    assert (one.label, other.label) == ("resnet20_an", "resnet20_bn")
    assert [run.seed for run in one.runs] == [1, 3]


def test_labels_have_the_fields_that_differ():
    runs = [a_run(), a_run(batch_size=32), a_run(batch_size=32, epochs=5.0)]
    assert [group.label for group in groups.group(runs)] == [
        "resnet20_an batch_size=64 epochs=60",
        "resnet20_an batch_size=32 epochs=60",
        "resnet20_an batch_size=32 epochs=5.0",
    ]


def test_interval_is_students():
    # mean 2, standard deviation 1, t of 2 degrees of freedom 4.302653
    mean, half = groups.interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2 and half == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert groups.interval(np.array([0.5])) == (0.5, None)
    assert groups.shown_interval(np.array([0.5])) == "0.5000"
    assert groups.shown_interval(np.array([1.0, 2.0, 3.0])) == "2.0000 ± 2.4841"


def test_differences_are_those_of_equal_seeds():
    one, other = groups.group(
        [
            *(a_run(seed, top1=0.8 + seed / 10) for seed in (0, 1)),
            *(a_run(seed, "resnet20_bn", 0.5) for seed in (1, 2)),
        ]
    )
    assert groups.differences(one, other) == pytest.approx([0.4])


def test_runs_with_equal_recipes_and_seeds_cannot_be_paired():
    with pytest.raises(RunError, match="differ in seed or recipe.*resnet20_an7"):
        groups.require_distinct(groups.group([a_run(7), a_run(7)]))
    groups.require_distinct(groups.group([a_run(7), a_run(7, "resnet20_bn")]))


def test_runs_on_different_images_are_refused():
    groups.require_equal_data([a_run(), a_run(1)])
    with pytest.raises(RunError, match="others in resnet20_an1 .digits."):
        groups.require_equal_data([a_run(), a_run(1, fingerprint="b")])


def test_curves_are_read_by_split(short_run):
    (run,) = groups.read([short_run[0]])
    assert run.curves["train"].shape == (3, 3)
    epochs, losses, top1 = run.curves["validation"].T
    assert len(epochs) and (np.diff(epochs) > 0).all()
    assert (losses > 0).all() and ((top1 >= 0) & (top1 <= 1)).all()


def test_damaged_curves_are_reported(tmp_path):
    run = dataclasses.replace(a_run(), directory=tmp_path)
    for text in ("step,loss\n1,2\n", "epoch,loss,top1,split\n1,2,x,train\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(RunError, match="metrics.csv is damaged"):
            _ = run.curves
