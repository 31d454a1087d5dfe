"""Runs of a sweep."""

import dataclasses
import json
import pathlib

import pytest

from train.cli import RunError, UsageError
from train.study import plan

HERE = pathlib.Path("sweep")
RATES = "optimizer.learning_rate=0.1", "optimizer.learning_rate=0.2"


def test_every_recipe_has_every_variation_and_seed():
    runs = plan.plan(HERE, ["digits", "digits_bn"], [0, 5], ["epochs=3"], RATES)
    assert [run.name for run in runs] == [
        f"{recipe}-learning_rate={rate}-seed{seed}"
        for seed in (0, 5)
        for recipe in ("digits", "digits_bn")
        for rate in (0.1, 0.2)
    ]
    last = runs[-1]
    assert last.settings.seed == 5 and last.settings.epochs == 3
    assert last.settings.optimizer.learning_rate == 0.2
    assert last.settings.model.name == "resnet20_bn"
    assert last.flags == (
        "--recipe=digits_bn",
        "--workdir=sweep/digits_bn-learning_rate=0.2-seed5",
        "--set=epochs=3",
        "--set=optimizer.learning_rate=0.2",
        "--seed=5",
    )


def test_fields_are_combined():
    varied = *RATES, "batch_size=32", "batch_size=64"
    runs = plan.plan(HERE, ["digits"], [0], variations=varied)
    pairs = {(r.settings.optimizer.learning_rate, r.settings.batch_size) for r in runs}
    assert pairs == {(0.1, 32), (0.1, 64), (0.2, 32), (0.2, 64)}


def test_repeated_names_and_seeds_count_once():
    assert (
        len(plan.plan(HERE, ["digits", "digits"], [1, 1], variations=RATES[:1] * 2))
        == 1
    )


def test_values_become_file_names():
    (run,) = plan.plan(
        HERE, ["digits"], [0], variations=["model.options={'position': 'norm12'}"]
    )
    assert run.name == "digits-options=position_norm12-seed0"


@pytest.mark.parametrize(
    ("names", "variations", "message"),
    [
        (["digit"], [], "Unknown recipe"),
        (["digits"], ["epoch=3"], "Unknown recipe field 'epoch'"),
        (["digits"], ["epochs=many"], "must be of type float"),
        (["digits"], ["batch_size=32", "batch_size= 32"], "the same run twice"),
        (["digits"], ["seed=3"], "Expected --seed=0,1,2"),
        (
            ["digits"],
            ["data.mean=(0.1,)", "data.mean=[0.1]"],
            "the same run twice",
        ),
    ],
)
def test_wrong_plans_are_usage_errors(names, variations, message):
    with pytest.raises(UsageError, match=message):
        plan.plan(HERE, names, [0], variations=variations)


@pytest.fixture
def finished(tmp_path):
    """A planned run with the files of a finished one."""
    (run,) = plan.plan(tmp_path, ["photos"], [0])
    run.workdir.mkdir()
    recipe = dataclasses.asdict(run.settings)
    recipe["data"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}  # settled by the run
    (run.workdir / "config.json").write_text(json.dumps({"recipe": recipe}))
    (run.workdir / "results.json").write_text('{"top1": 0.5, "loss": 1.0}')
    return run


def test_finished_run_has_its_results(finished, tmp_path):
    assert finished.results() == {"top1": 0.5, "loss": 1.0}
    (finished.workdir / "results.json").unlink()
    assert finished.results() is None
    (new,) = plan.plan(tmp_path, ["digits"], [0])
    assert new.results() is None


def test_run_with_other_settings_is_refused(finished, tmp_path):
    (other,) = plan.plan(tmp_path, ["photos"], [0], ["epochs=3"])
    with pytest.raises(RunError, match="other settings.*Received: epochs=60.0."):
        other.results()


@pytest.mark.parametrize("name", ["results.json", "config.json"])
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"top1": "a", "recipe": 3}'])
def test_damaged_files_are_reported(finished, name, text):
    (finished.workdir / name).write_text(text)
    with pytest.raises(RunError, match="is damaged|is not the directory of a run"):
        finished.results()
