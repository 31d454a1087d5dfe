"""Layers and models of Keras 3 in tf_keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import model_zoo
from an_keras import AttentiveNormalization
from train.detection.facade import Backbone, KerasLayer


def values(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def as_model(facade):
    inputs = tf_keras.Input((16, 16, 3))
    return tf_keras.Model(inputs, facade(inputs))


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    model = model_zoo.create_model("resnet8_an", input_shape=(None, None, 3), classes=3)
    return model_zoo.multi_scale(model, levels=(0, 1, 2))


def assert_equal(received, expected):
    tf.nest.assert_same_structure(dict(received), dict(expected))
    for level in expected:
        np.testing.assert_allclose(received[level], expected[level], atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_those_of_the_network(network, training):
    images, facade = values(4, 16, 16, 3), Backbone(network)
    with tf.GradientTape(persistent=True) as tape:
        received = facade(images, training=training)
        expected = network(images, training=training)
        losses = [
            sum(tf.reduce_sum(tf.sin(each)) for each in maps.values())
            for maps in (received, expected)
        ]
    assert_equal(received, expected)
    assert len(facade.trainable_weights) == len(network.trainable_weights)
    for path, variable in facade.weights_by_path.items():
        if not variable.trainable:
            continue
        pair = [tape.gradient(loss, variable) for loss in losses]
        assert pair[0] is not None, path
        np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-4, err_msg=path)


def test_parameters_are_those_of_the_network(network):
    facade = Backbone(network)
    model = as_model(facade)
    assert model.count_params() == network.count_params()
    assert len(model.weights) == len(network.weights)
    assert all("/" in path for path in facade.weights_by_path)


def test_output_specs_are_the_shapes_of_the_maps(network):
    specs = Backbone(network).output_specs
    assert {k: v.as_list() for k, v in specs.items()} == {
        "0": [None, None, None, 16],
        "1": [None, None, None, 32],
        "2": [None, None, None, 64],
    }


def trained(facade, images, steps=2):
    optimizer = tf_keras.optimizers.SGD(0.1)
    model = as_model(facade)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            maps = model(images, training=True)
            loss = sum(tf.reduce_mean(tf.square(each)) for each in maps.values())
            loss += sum(model.losses)
        weights = model.trainable_variables
        optimizer.apply_gradients(
            zip(tape.gradient(loss, weights), weights, strict=True)
        )

    for _ in range(steps):
        step()


def test_frozen_layers_do_not_move_while_tables_outside_them_do(network):
    facade = Backbone(network, frozen_level=0, training=False)
    facade.build((None, None, None, 3))
    before = {path: v.numpy() for path, v in facade.weights_by_path.items()}
    trained(facade, values(4, 16, 16, 3))
    moved = {
        path
        for path, v in facade.weights_by_path.items()
        if not np.array_equal(v.numpy(), before[path])
    }
    assert not [path for path in moved if path.startswith(("stem", "stage1"))]
    assert not [path for path in moved if "moving" in path]
    outside = {path for path in before if path.startswith(("stage2", "stage3"))}
    assert moved == {path for path in outside if "moving" not in path}
    assert {"stage2_block1_norm1/gamma", "stage2_block1_norm1/gate/kernel"} <= moved


def test_moving_statistics_move_unless_they_are_frozen(network):
    for training, moves in ((None, True), (False, False)):
        facade = Backbone(network, training=training)
        facade.build((None, None, None, 3))
        mean = facade.weights_by_path["stem_norm/moving_mean"]
        before = mean.numpy()
        facade(values(4, 16, 16, 3), training=True)
        assert np.array_equal(mean.numpy(), before) is not moves


def test_whole_facade_can_be_frozen(network):
    facade = Backbone(network)
    facade.build((None, None, None, 3))
    facade.trainable = False
    assert not facade.trainable_weights
    assert len(facade.non_trainable_weights) == len(network.weights)


def test_unknown_level_to_freeze_is_an_error(network):
    with pytest.raises(ValueError, match="one of 0, 1, 2 for resnet8_an_multi_scale"):
        Backbone(network, frozen_level=5)


def test_penalty_is_that_of_all_trained_variables(network):
    facade = Backbone(
        network, frozen_level=1, regularizer=tf_keras.regularizers.L2(0.5)
    )
    model = as_model(facade)
    expected = sum(0.5 * np.square(v.numpy()).sum() for v in network.trainable_weights)
    (penalty,) = model.losses
    assert float(penalty) == pytest.approx(expected, rel=1e-5) and expected > 0
    facade.trainable = False
    assert float(*model.losses) == 0


def test_checkpoint_restores_the_values_in_another_network(network, tmp_path):
    facade = Backbone(network)
    facade.build((None, None, None, 3))
    path = tf.train.Checkpoint(backbone=facade).save(str(tmp_path / "ckpt"))
    other = Backbone(
        model_zoo.multi_scale(
            model_zoo.create_model("resnet8_an", input_shape=(None, None, 3)),
            levels=(0, 1, 2),
        )
    )
    other.build((None, None, None, 3))
    status = tf.train.Checkpoint(backbone=other).restore(path)
    status.assert_consumed()
    for name, variable in facade.weights_by_path.items():
        np.testing.assert_array_equal(other.weights_by_path[name], variable)


def test_variables_with_equal_paths_are_refused():
    class Twins(keras.layers.Layer):
        def build(self, input_shape):
            self.norms = [AttentiveNormalization(3, name="norm") for _ in range(2)]
            for norm in self.norms:
                norm.build(input_shape)

    with pytest.raises(ValueError, match="twins must have different paths"):
        KerasLayer(Twins(name="twins"))(values(2, 4, 4, 8))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_that_of_the_layers_policy(policy):
    layer = AttentiveNormalization(3, dtype=policy)
    facade = KerasLayer(layer)
    outputs = facade(values(2, 4, 4, 8), training=True)
    assert outputs.dtype.name == policy.removeprefix("mixed_")
    assert {v.dtype.name for v in facade.weights_by_path.values()} == {"float32"}


def test_saved_model_answers_as_the_network(network, tmp_path):
    facade = Backbone(network)
    module = tf.Module()
    module.model = as_model(facade)
    module.serve = tf.function(
        lambda images: module.model(images, training=False),
        input_signature=[tf.TensorSpec((None, 16, 16, 3))],
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    images = values(2, 16, 16, 3)
    received = served(tf.constant(images))
    assert_equal(received, network(images, training=False))
