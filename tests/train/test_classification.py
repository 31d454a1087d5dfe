"""The network and the loss of a run."""

import dataclasses

import numpy as np
import pytest

from train import classification, fingerprint
from train.command import RunError, UsageError


def test_training_starts_from_the_best_weights_of_a_run(short_run):
    workdir, _ = short_run
    facts = fingerprint.read_facts(workdir)
    best, _, _ = classification.load_best(workdir)
    start = classification.create_model(facts, str(workdir))
    for ours, theirs in zip(start.weights, best.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_classifier_for_other_classes_is_made_anew(short_run, tmp_path):
    workdir, _ = short_run
    facts = fingerprint.read_facts(workdir)
    best, _, _ = classification.load_best(workdir)
    best.save_weights(tmp_path / "best.weights.h5")
    others = dataclasses.replace(facts, class_names=("even", "odd"))
    for weights in (workdir, tmp_path / "best.weights.h5"):
        start = classification.create_model(others, str(weights))
        assert start.output_shape == (None, 2)
        for ours, theirs in zip(start.weights[:-2], best.weights[:-2], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_weights_of_another_network_are_a_usage_error(short_run):
    workdir, _ = short_run
    facts = fingerprint.read_facts(workdir)
    model = dataclasses.replace(facts.recipe.model, name="resnet32_an")
    recipe = dataclasses.replace(facts.recipe, model=model)
    with pytest.raises(UsageError, match=f"Cannot build resnet32_an: '{workdir}'"):
        classification.create_model(
            dataclasses.replace(facts, recipe=recipe), str(workdir)
        )


def test_weights_that_are_not_finite_are_a_usage_error(short_run, monkeypatch):
    workdir, _ = short_run
    facts = fingerprint.read_facts(workdir)
    best, _, step = classification.load_best(workdir)
    best.get_layer("stem_norm").gamma.assign(np.full(16, np.nan))
    monkeypatch.setattr(classification, "load_best", lambda run: (best, facts, step))
    with pytest.raises(UsageError, match=f"'{workdir}' is refused: stem_norm/gamma"):
        classification.create_model(facts, str(workdir))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_have_a_part_of_every_class(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = (
        rng.normal(size=(6, 4)).astype("float32"),
        np.array([0, 1, 2, 3, 1, 0]),
    )
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    received = classification.cross_entropy(labels, logits, smoothing)
    np.testing.assert_allclose(received, -(targets * log).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", ["my net", "\ud800", "a/b", ""])
def test_name_that_graphs_do_not_take_is_a_usage_error(short_run, name):
    facts = fingerprint.read_facts(short_run[0])
    model = dataclasses.replace(facts.recipe.model, options={"name": name})
    recipe = dataclasses.replace(facts.recipe, model=model)
    with pytest.raises(UsageError, match="a name of letters, digits|Cannot build"):
        classification.create_model(dataclasses.replace(facts, recipe=recipe))


def test_network_that_does_not_fit_into_memory_is_an_error(short_run):
    facts = fingerprint.read_facts(short_run[0])
    wide = {"num_components": 2**20, "gate_hidden_units": 2**20}  # 4 TiB a kernel
    options = {"norm_options": wide}
    model = dataclasses.replace(facts.recipe.model, options=options)
    recipe = dataclasses.replace(facts.recipe, model=model)
    with pytest.raises(RunError, match="Cannot build resnet20_an: "):
        classification.create_model(dataclasses.replace(facts, recipe=recipe))
