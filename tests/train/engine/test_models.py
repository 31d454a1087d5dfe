"""The network of a run and where its weights come from."""

import dataclasses

import numpy as np
import pytest

from train.cli import RunError, UsageError
from train.engine import models, run_directory


def test_training_starts_from_the_best_weights_of_a_run(short_run):
    workdir, _ = short_run
    facts = run_directory.read_facts(workdir)
    best, _, _ = models.load_best(workdir)
    start = models.create_model(facts, str(workdir))
    for ours, theirs in zip(start.weights, best.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_classifier_for_other_classes_is_made_anew(short_run, tmp_path):
    workdir, _ = short_run
    facts = run_directory.read_facts(workdir)
    best, _, _ = models.load_best(workdir)
    best.save_weights(tmp_path / "best.weights.h5")
    others = dataclasses.replace(facts, class_names=("even", "odd"))
    for weights in (workdir, tmp_path / "best.weights.h5"):
        start = models.create_model(others, str(weights))
        assert start.output_shape == (None, 2)
        for ours, theirs in zip(start.weights[:-2], best.weights[:-2], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_weights_of_another_network_are_a_usage_error(short_run):
    workdir, _ = short_run
    facts = run_directory.read_facts(workdir)
    model = dataclasses.replace(facts.recipe.model, name="resnet32_an")
    recipe = dataclasses.replace(facts.recipe, model=model)
    with pytest.raises(UsageError, match=f"Cannot build resnet32_an: '{workdir}'"):
        models.create_model(dataclasses.replace(facts, recipe=recipe), str(workdir))


def test_weights_that_are_not_finite_are_a_usage_error(short_run, monkeypatch):
    workdir, _ = short_run
    facts = run_directory.read_facts(workdir)
    best, _, step = models.load_best(workdir)
    best.get_layer("stem_norm").gamma.assign(np.full(16, np.nan))
    monkeypatch.setattr(models, "load_best", lambda run: (best, facts, step))
    with pytest.raises(UsageError, match=f"'{workdir}' is refused: stem_norm/gamma"):
        models.create_model(facts, str(workdir))


@pytest.mark.parametrize("name", ["my net", "\ud800", "a/b", ""])
def test_name_that_graphs_do_not_take_is_a_usage_error(short_run, name):
    facts = run_directory.read_facts(short_run[0])
    model = dataclasses.replace(facts.recipe.model, options={"name": name})
    recipe = dataclasses.replace(facts.recipe, model=model)
    with pytest.raises(UsageError, match="a name of letters, digits|Cannot build"):
        models.create_model(dataclasses.replace(facts, recipe=recipe))


def test_network_that_does_not_fit_into_memory_is_an_error(short_run):
    facts = run_directory.read_facts(short_run[0])
    wide = {"num_components": 2**20, "gate_hidden_units": 2**20}  # 4 TiB a kernel
    options = {"norm_options": wide}
    model = dataclasses.replace(facts.recipe.model, options=options)
    recipe = dataclasses.replace(facts.recipe, model=model)
    with pytest.raises(RunError, match="Cannot build resnet20_an: "):
        models.create_model(dataclasses.replace(facts, recipe=recipe))
