"""Collecting attention, folding models, freezing parts of them."""

import threading

import backends
import keras
import numpy as np
import pytest
from keras import layers, ops

from an_keras import (
    AttentiveNormalization,
    collect_attention,
    fold_for_inference,
    freeze_all_but_normalization,
    freeze_normalization,
    inference,
)


def test_attention_of_nested_and_shared_layers_is_collected_by_path():
    shared = AttentiveNormalization(3, name="shared")
    inner = keras.Sequential(
        [keras.Input((4, 4, 6)), AttentiveNormalization(2, name="deep")], name="inner"
    )
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, shared(inner(shared(inputs))))
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 6)).astype("float32")
    before = [np.array(w) for w in model.get_weights()]

    collected = collect_attention(model, x)

    deep = inner.get_layer("deep")
    assert list(collected) == [shared.path, deep.path, f"{shared.path}:1"]
    first = ops.convert_to_numpy(collected[shared.path])
    np.testing.assert_allclose(
        first, ops.convert_to_numpy(shared.attention(x)), atol=1e-6
    )
    assert collected[deep.path].shape == (5, 2)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_model_without_attention_raises():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(
        ValueError, match="no AttentiveNormalization. Received: 'plain'"
    ):
        collect_attention(model, np.ones((1, 4)))


class Member(keras.Model):
    """Calls its second norm only in training, or always with `where="always"`."""

    def __init__(self, where="training", **kwargs):
        super().__init__(**kwargs)
        self.norm = AttentiveNormalization(2, name="norm")
        self.auxiliary = AttentiveNormalization(2, name="auxiliary")
        self.where = where

    def build(self, shape):
        self.norm.build(shape)
        self.auxiliary.build(shape)

    def call(self, x, training=None):
        if training or self.where == "always":
            self.auxiliary(x)
        return self.norm(x, training=training)


def test_layers_not_called_in_inference_have_no_entry():
    model, x = Member(), np.ones((5, 4, 4, 3), "float32")
    model(x)
    assert list(collect_attention(model, x)) == [model.norm.path]


def functional_member(name):
    norm = AttentiveNormalization(2, name="norm")
    return keras.Sequential([keras.Input((4, 4, 3)), norm], name=name)


class Ensemble(keras.Model):
    def __init__(self, members):
        super().__init__(name="ensemble")
        self.members = members

    def build(self, shape):
        for member in self.members:
            if not member.built:
                member.build(shape)

    def call(self, x):
        return sum(member(x) for member in self.members)


def functional_ensemble(members):
    inputs = keras.Input((4, 4, 3))
    outputs = layers.Average()([member(inputs) for member in members])
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("make", [functional_ensemble, Ensemble])
def test_ensemble_members_have_different_paths(make):
    members = [functional_member("a"), functional_member("b")]
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")
    collected = collect_attention(make(members), x)
    assert list(collected) == ["a/norm", "b/norm"]
    for member, attention in zip(members, collected.values(), strict=True):
        expected = ops.convert_to_numpy(member.layers[-1].attention(x))
        np.testing.assert_allclose(ops.convert_to_numpy(attention), expected, atol=1e-6)


def test_ensemble_members_with_equal_names_raise():
    model = Ensemble([functional_member("a"), functional_member("a")])
    with pytest.raises(ValueError, match="Received: several layers named a/norm"):
        collect_attention(model, np.ones((5, 4, 4, 3), "float32"))


def test_calls_in_other_threads_are_ignored():
    model, x = Member(), np.ones((5, 4, 4, 3), "float32")
    model(x)

    class CallsInAThread(layers.Layer):
        def call(self, inputs):
            thread = threading.Thread(target=model, args=(x[:2],))
            thread.start()
            thread.join()
            return inputs

    outer = Ensemble([CallsInAThread(), model])
    outer(x)
    (attention,) = collect_attention(outer, x).values()
    assert attention.shape == (5, 2)


class InAThread(layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = AttentiveNormalization(2, name="in_a_thread")

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        outputs = []
        thread = threading.Thread(target=lambda: outputs.append(self.norm(x)))
        thread.start()
        thread.join()
        return outputs[0]


def test_layer_called_in_another_thread_raises():
    model, x = Ensemble([InAThread(), Member()]), np.ones((5, 4, 4, 3), "float32")
    model(x)
    with pytest.raises(ValueError, match="in this thread.*Received: .*in_a_thread"):
        collect_attention(model, x)


class Branch(Member):
    """A model whose Python code branches on the values of its inputs."""

    def call(self, x, training=None):
        x = ops.convert_to_tensor(x)
        return self.norm(x) if float(ops.mean(x)) > 0 else self.auxiliary(x)


def test_only_the_branch_taken_has_an_entry():
    model, x = Branch(), np.ones((5, 4, 4, 3), "float32")
    model.build(x.shape)
    assert list(collect_attention(model, x)) == [model.norm.path]
    assert list(collect_attention(model, -x)) == [model.auxiliary.path]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None, np.ones((1, 4, 4, 3))), "must be a Keras model. Received: None"),
        ((Member(), keras.Input((4, 4, 3))), "Received a symbolic tensor"),
    ],
)
def test_invalid_models_and_inputs_raise(arguments, error):
    with pytest.raises((TypeError, ValueError), match=error):
        collect_attention(*arguments)


class Cell(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = AttentiveNormalization(2, name="norm")
        self.state_size = self.output_size = 3

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, states, training=None):
        y = self.norm(x + states[0], training=training)
        return y, [y]


def test_rnn_steps_are_collected_only_if_unrolled():
    x = np.ones((4, 5, 3), "float32")

    def recurrent(unroll):
        rnn = layers.RNN(Cell(), unroll=unroll, name="rnn")
        return keras.Sequential([keras.Input((5, 3)), rnn])

    assert len(collect_attention(recurrent(True), x)) == 5
    with pytest.raises(ValueError, match="unroll=True. Received: .*norm in rnn"):
        collect_attention(recurrent(False), x)
    model = keras.Sequential([layers.TimeDistributed(AttentiveNormalization(2))])
    assert len(collect_attention(model, np.ones((2, 3, 4, 4, 5), "float32"))) == 3


def attentive_network(**arguments):
    """Returns a trained model with two attentive normalizations, and its inputs."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv"),
            AttentiveNormalization(4, name="first", **arguments),
            layers.Conv2D(8, 3, name="other"),
            layers.BatchNormalization(name="plain"),
            layers.GlobalAveragePooling2D(),
            AttentiveNormalization(3, name="second", gate_hidden_units=5),
            layers.Dense(2, name="predictions"),
        ],
        name="network",
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, (32, 8, 8, 3)).astype("float32")
    model.fit(x, rng.normal(size=(32, 2)), epochs=3, batch_size=8, verbose=0)
    return model, x


@pytest.mark.parametrize(
    ("arguments", "backbone", "gate"),
    [
        ({}, None, None),
        ({"descriptor": "mean", "gate_activation": "softmax"}, None, None),
        ({"gate_normalization": "group"}, None, "group"),
        ({"normalization": "group", "groups": 2}, "group", None),
        ({"normalization": "layer", "gate_normalization": "batch"}, "layer", None),
        ({"gate_hidden_units": 6, "epsilon": 0.1}, None, None),
    ],
    ids=["default", "softmax", "gate_group", "group", "layer", "hidden"],
)
def test_folded_models_give_the_same_outputs_without_statistics(
    arguments, backbone, gate, tmp_path
):
    model, x = attentive_network(**arguments)
    folded = fold_for_inference(model)
    a, b = (backends.apply(m, x) for m in (model, folded))
    np.testing.assert_allclose(b, a, atol=2e-6 * np.abs(a).max())
    first = folded.get_layer("first")
    assert (first.normalization, first.gate.normalization) == (backbone, gate)
    assert not [w for w in first.non_trainable_variables if "moving" in w.name]
    folded.save(tmp_path / "folded.keras")
    again = keras.models.load_model(tmp_path / "folded.keras")
    np.testing.assert_array_equal(b, backends.apply(again, x))


def test_folding_preserves_double_precision():
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), AttentiveNormalization(4, dtype="float64")]
    )
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 2.0, (8, 4, 4, 3))
    for _ in range(3):
        model(x, training=True)
    a, b = (backends.apply(m, x) for m in (model, fold_for_inference(model)))
    tolerance = 1e-12 if backends.KEEPS_DOUBLE else 1e-6
    np.testing.assert_allclose(b, a, atol=tolerance)


def called_in_training():
    inputs = keras.Input((6, 6, 3))
    norm = AttentiveNormalization(3, name="norm")
    return keras.Model(inputs, norm(layers.Conv2D(4, 3)(inputs), training=True))


def called_both_ways():
    inputs = keras.Input((6, 6, 3))
    norm = AttentiveNormalization(3, name="norm")
    return keras.Model(inputs, norm(layers.Dense(3)(norm(inputs)), training=True))


def inside_a_model_called_in_training():
    inputs = keras.Input((6, 6, 3))
    inner = keras.Sequential(
        [keras.Input((6, 6, 3)), AttentiveNormalization(3, name="norm")]
    )
    return keras.Model(inputs, inner(inputs, training=True))


def after_dropout_at_random():
    """Returns a model in which Keras passes `training` of dropout on to the norm."""
    inputs = keras.Input((6, 6, 3))
    outputs = layers.GaussianDropout(1e-7)(inputs, training=True)
    return keras.Model(inputs, AttentiveNormalization(3, name="norm")(outputs))


def called_in_inference():
    inputs = keras.Input((6, 6, 3))
    outputs = layers.GaussianDropout(1e-7)(inputs, training=True)
    norm = AttentiveNormalization(3, name="norm")
    return keras.Model(inputs, norm(outputs, training=False))


def inside_a_model_called_in_inference():
    inner = called_in_training()
    inputs = keras.Input((6, 6, 3))
    return keras.Model(inputs, inner(inputs, training=False))


def with_dropout_at_random_after_it():
    inputs = keras.Input((6, 6, 3))
    outputs = AttentiveNormalization(3, name="norm")(inputs)
    return keras.Model(inputs, layers.GaussianDropout(1e-7)(outputs, training=True))


@pytest.mark.parametrize(
    ("make", "is_folded"),
    [
        (called_in_training, False),
        (called_both_ways, False),
        (inside_a_model_called_in_training, False),
        (after_dropout_at_random, False),
        (called_in_inference, True),
        (inside_a_model_called_in_inference, True),
        (with_dropout_at_random_after_it, True),
    ],
)
def test_layers_that_use_batch_statistics_are_not_folded(make, is_folded):
    model = make()
    x = np.random.default_rng(0).normal(1, 3, (8, 6, 6, 3)).astype("float32")
    for _ in range(3):
        model(x, training=True)
    folded = fold_for_inference(model)
    for arguments in ({}, {"training": False}):
        a, b = (backends.apply(each, x, **arguments) for each in (model, folded))
        np.testing.assert_allclose(b, a, atol=2e-5)
    (norm,) = inference.attentive_layers(folded)
    assert (norm.normalization is None) == is_folded


def test_frozen_weights_stay_frozen_when_folded():
    norm = AttentiveNormalization(3, name="norm")
    model = keras.Sequential([keras.Input((4, 4, 3)), norm])
    norm.gamma.trainable = norm.gate.kernel.trainable = False
    (folded,) = inference.attentive_layers(fold_for_inference(model))
    trainable = {variable.name: variable.trainable for variable in folded.weights}
    assert trainable == {"gamma": False, "beta": True, "kernel": False, "bias": True}


def test_folding_keeps_dropout_that_is_active_in_inference():
    inputs = keras.Input((6, 6, 3))
    outputs = AttentiveNormalization(3)(inputs)
    model = keras.Model(inputs, layers.Dropout(0.5)(outputs, training=True))
    folded = fold_for_inference(model)
    x = np.ones((4, 6, 6, 3), "float32")
    for each in (model, folded):
        assert np.mean(backends.apply(each, x) == 0) > 0.2


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = AttentiveNormalization(2, name="within")
        self.scale = layers.Dense(3)

    def build(self, shape):
        self.own = self.add_weight(shape=(3,), initializer="ones")
        self.norm.build(shape)
        self.scale.build(shape)

    def call(self, x, training=None):
        return self.scale(self.norm(x, training=training)) * self.own


def test_models_that_cannot_be_folded_raise():
    hidden = keras.Sequential([keras.Input((4, 4, 3)), Block(name="block")])
    with pytest.raises(ValueError, match="Received: block/within"):
        fold_for_inference(hidden)
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="plain")
    with pytest.raises(
        ValueError, match="no AttentiveNormalization. Received: 'plain'"
    ):
        fold_for_inference(plain)


def test_frozen_norms_do_not_change_in_training():
    model, x = attentive_network()
    freeze_normalization(model)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    before = {v.path: ops.convert_to_numpy(v) for v in model.variables}
    model.fit(x, np.ones((32, 2)), batch_size=2, verbose=0)
    changed = {
        path
        for path, value in before.items()
        for v in model.variables
        if v.path == path and np.any(ops.convert_to_numpy(v) != value)
    }
    assert {path.split("/")[-2] for path in changed} == {"conv", "other", "predictions"}


def test_freezing_all_but_normalization_leaves_norms_trainable():
    model, _ = attentive_network()
    freeze_all_but_normalization(model)
    owners = {v.path.split("/")[-2] for v in model.trainable_variables}
    assert owners == {"first", "second", "gate", "plain"}
    model.get_layer("predictions").trainable = True
    assert len(model.trainable_variables) == 2 + 3 + 2 + 2 + 6 + 2


def test_norms_inside_custom_layers_are_found():
    model = keras.Sequential([keras.Input((4, 4, 3)), Block(name="block")])
    freeze_all_but_normalization(model)
    paths = [v.path for v in model.trainable_variables]
    assert paths and all("within" in path for path in paths)
    freeze_normalization(model)
    assert not model.trainable_variables


@pytest.mark.parametrize("freeze", [freeze_normalization, freeze_all_but_normalization])
def test_models_without_norms_raise(freeze):
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="plain")
    with pytest.raises(ValueError, match="no normalization layer. Received: 'plain'"):
        freeze(plain)


def test_freezing_other_objects_raises():
    with pytest.raises(TypeError, match="must be a Keras model. Received: 3"):
        freeze_normalization(3)


def test_folded_weights_that_overflow_raise():
    norm = AttentiveNormalization(3, dtype="float16", name="norm")
    model = keras.Sequential([keras.Input((2, 2, 3)), norm])
    norm.moving_variance.assign(np.full(3, 1e-8))
    norm.gamma.assign(np.full((3, 3), 900.0))
    with pytest.raises(ValueError, match="must fit.* Received: .*norm in float16"):
        fold_for_inference(model)
