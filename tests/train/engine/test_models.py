"""The network of a run and the source of its weights."""

import dataclasses

import keras
import numpy as np
import pytest

from train.cli import RunError, UsageError
from train.engine import models, run_directory


def test_training_starts_from_the_best_weights_of_a_run(short_run):
    workdir, _ = short_run
    spec = run_directory.read_spec(workdir)
    best, _, _ = models.load_best(workdir)
    start = models.create_model(spec, str(workdir))
    for ours, theirs in zip(start.weights, best.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_classifier_for_other_classes_is_reinitialized(short_run, tmp_path):
    workdir, _ = short_run
    spec = run_directory.read_spec(workdir)
    best, _, _ = models.load_best(workdir)
    best.save_weights(tmp_path / "best.weights.h5")
    others = dataclasses.replace(spec, class_names=("even", "odd"))
    for weights in (workdir, tmp_path / "best.weights.h5"):
        start = models.create_model(others, str(weights))
        assert start.output_shape == (None, 2)
        for ours, theirs in zip(start.weights[:-2], best.weights[:-2], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_run_on_grey_images_starts_one_on_colour_images(short_run, caplog):
    workdir, _ = short_run
    spec = run_directory.read_spec(workdir)
    best, _, _ = models.load_best(workdir)
    colour = dataclasses.replace(spec, shape=(*spec.shape[:2], 3))
    start = models.create_model(colour, str(workdir))
    assert "adapted the input channels of stem_conv, 1 in" in caplog.text
    grey = np.random.default_rng(0).normal(size=(2, *spec.shape)).astype("float32")
    np.testing.assert_allclose(start(grey.repeat(3, -1)), best(grey), atol=1e-4)


def test_weights_of_another_network_are_a_usage_error(short_run):
    workdir, _ = short_run
    spec = run_directory.read_spec(workdir)
    model = dataclasses.replace(spec.recipe.model, name="resnet32_an")
    recipe = dataclasses.replace(spec.recipe, model=model)
    with pytest.raises(UsageError, match=f"Cannot build resnet32_an: '{workdir}'"):
        models.create_model(dataclasses.replace(spec, recipe=recipe), str(workdir))


def test_non_finite_weights_are_a_usage_error(short_run, monkeypatch):
    workdir, _ = short_run
    spec = run_directory.read_spec(workdir)
    best, _, step = models.load_best(workdir)
    best.get_layer("stem_norm").gamma.assign(np.full(16, np.nan))
    monkeypatch.setattr(models, "load_best", lambda run: (best, spec, step))
    with pytest.raises(UsageError, match=f"'{workdir}' is refused: stem_norm/gamma"):
        models.create_model(spec, str(workdir))


@pytest.mark.parametrize("name", ["my net", "\ud800", "a/b", ""])
def test_name_that_is_invalid_in_graphs_is_a_usage_error(short_run, name):
    spec = run_directory.read_spec(short_run[0])
    model = dataclasses.replace(spec.recipe.model, options={"name": name})
    recipe = dataclasses.replace(spec.recipe, model=model)
    with pytest.raises(UsageError, match="a name of letters, digits|Cannot build"):
        models.create_model(dataclasses.replace(spec, recipe=recipe))


def test_network_that_does_not_fit_into_memory_is_an_error(short_run):
    spec = run_directory.read_spec(short_run[0])
    wide = {"num_components": 2**20, "gate_hidden_units": 2**20}  # 4 TiB per kernel
    options = {"norm_options": wide}
    model = dataclasses.replace(spec.recipe.model, options=options)
    recipe = dataclasses.replace(spec.recipe, model=model)
    with pytest.raises(RunError, match="Cannot build resnet8_an: "):
        models.create_model(dataclasses.replace(spec, recipe=recipe))


def test_norms_and_classifier_are_trained_alone(short_run):
    spec = run_directory.read_spec(short_run[0])
    model = models.create_model(spec)
    everything = models.trainable_parameters(model)
    models.freeze(model, "norms")
    layers = {variable.path.split("/")[0] for variable in model.trainable_variables}
    assert layers == {
        *(layer.name for layer in model.layers if "norm" in layer.name),
        models.head(model).name,
    }
    assert models.trainable_parameters(model) < everything / 5


def test_all_but_norms_leaves_norms_as_they_are(short_run):
    model = models.create_model(run_directory.read_spec(short_run[0]))
    models.freeze(model, "all_but_norms")
    assert not [v.path for v in model.trainable_variables if "norm" in v.path]
    before = [v.numpy() for v in model.variables]
    model(np.ones((2, 8, 8, 1), "float32"), training=True)
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)


@pytest.mark.parametrize("trained", ["norms", "all_but_norms"])
def test_freezing_needs_norms(trained):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(UsageError, match=f"model.trained={trained} needs a network"):
        models.freeze(model, trained)
