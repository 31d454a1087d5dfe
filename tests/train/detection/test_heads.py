"""Heads and pyramid of Mask R-CNN with the norms of the paper."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from golden import GOLDEN, channels_last, to_keras, weights_rule

from train.detection import heads

REFERENCE = np.load(GOLDEN / "layers.npz")
CASES = json.loads((GOLDEN / "layers.json").read_text())["cases"]
SHAPE = next(case["shape"] for case in CASES if case["case"] == "det_gn_train")
PATHS = {
    "weight_": "an/gamma",
    "bias_": "an/beta",
    "attention_weights.attention.0.weight": "an/gate/kernel",
    "attention_weights.attention.0.bias": "an/gate/bias",
}


def test_an_gn_equals_the_published_layer_of_the_heads(monkeypatch):
    monkeypatch.setattr(heads, "GROUPS", 4)  # of the 16 channels of the reference
    layer = heads.create_norm("an_gn", "an", num_components=5)
    layer.build((None, *SHAPE[2:], SHAPE[1]))
    assert set(layer.weights_by_path) == set(PATHS.values())
    for key, path in PATHS.items():
        variable = layer.weights_by_path[path]
        shape = tuple(variable.shape)
        if key.endswith("weight"):
            shape = (*shape[::-1], 1, 1)
        variable.assign(to_keras(weights_rule.tensor(f"layer.{key}", shape)))
    x = weights_rule.feature("layer_x", tuple(SHAPE), scale=2.0, offset=0.3)
    dy = weights_rule.sym("layer_dy", tuple(SHAPE))
    x, dy = (tf.constant(channels_last(each), "float32") for each in (x, dy))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    sources = [x, *(layer.weights_by_path[path] for path in PATHS.values())]
    gradients = tape.gradient(y, sources, output_gradients=dy)
    expected = {"y": y, "dx": gradients[0]}
    for what, received in expected.items():
        reference = channels_last(REFERENCE[f"det_gn_train/{what}"])
        np.testing.assert_allclose(received, reference, rtol=1e-4, atol=2e-5)
    for key, gradient in zip(PATHS, gradients[1:], strict=True):
        reference = to_keras(REFERENCE[f"det_gn_train/d_{key}"])
        np.testing.assert_allclose(gradient, reference, rtol=1e-3, atol=1e-4)


def box_head(**given):
    settings = {"num_convs": 4, "num_filters": 64, "num_fcs": 1, "fc_dims": 32}
    head = heads.BoxHead(num_classes=3, **settings, **given)
    head(tf.zeros((1, 2, 7, 7, 64)))
    return head


def mask_head(**given):
    head = heads.MaskHead(num_classes=3, num_convs=2, num_filters=64, **given)
    head([tf.zeros((1, 2, 14, 14, 64)), tf.ones((1, 2), tf.int32)])
    return head


def rpn_head(**given):
    head = heads.RPNHead(
        min_level=2, max_level=3, num_anchors_per_location=3, num_filters=64, **given
    )
    head({"2": tf.zeros((1, 8, 8, 64)), "3": tf.zeros((1, 4, 4, 64))})
    return head


def test_heads_without_norms_have_only_convolutions_and_their_biases():
    conv = 3 * 3 * 64 * 64 + 64
    assert box_head().count_params() == 4 * conv + (49 * 64 + 1) * 32 + 33 * (3 + 12)
    assert mask_head().count_params() == 2 * conv + 4 * 64 * 64 + 64 + 65 * 3
    assert rpn_head().count_params() == conv + 65 * (3 + 12)


@pytest.mark.parametrize(
    ("norm", "each"),
    [("bn", 4 * 64), ("gn", 2 * 64), ("an_gn", None)],
)
def test_norms_are_added_to_the_convolutions_alone(norm, each):
    plain = box_head()
    received = box_head(norm=norm, num_components=(2, 2, 3, 3))
    added = received.count_params() - plain.count_params()
    tables_and_gate = sum(2 * k * 64 + 65 * k for k in (2, 2, 3, 3))
    assert added == (4 * each if each else tables_and_gate)
    if each:
        added = mask_head(norm=norm).count_params() - mask_head().count_params()
        assert added == 2 * each


def test_batch_norms_of_a_head_follow_the_mode_of_the_network():
    head = box_head(norm="bn")
    features = tf_keras.Input((2, 7, 7, 64))
    model = tf_keras.Model(features, head(features))
    mean = next(v for v in head.non_trainable_weights if v.name.count("moving_mean"))
    x = np.random.default_rng(0).normal(size=(1, 2, 7, 7, 64)).astype("float32")
    model(x, training=False)
    assert not mean.numpy().any()
    model(x, training=True)
    assert mean.numpy().any()


def test_every_variable_of_a_head_has_a_gradient_and_a_penalty():
    l2 = tf_keras.regularizers.L2(0.5)
    given = {"kernel_regularizer": l2, "bias_regularizer": l2}
    head = box_head(norm="an_gn", **given)
    x = np.random.default_rng(0).normal(size=(1, 2, 7, 7, 64)).astype("float32")
    with tf.GradientTape() as tape:
        classes, boxes = head(x, training=True)
        loss = tf.reduce_sum(tf.sin(classes)) + tf.reduce_sum(tf.sin(boxes))
    gradients = tape.gradient(loss, head.trainable_weights)
    assert all(gradient is not None for gradient in gradients)
    expected = sum(0.5 * np.square(v.numpy()).sum() for v in head.trainable_weights)
    assert float(sum(head.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("build", "norm"), [(box_head, "an_gn"), (mask_head, "gn")])
def test_head_is_restored_from_its_configuration(build, norm):
    head = build(norm=norm)
    again = type(head).from_config(head.get_config())
    assert again.get_config() == head.get_config()


def test_components_must_fit_the_convolutions():
    with pytest.raises(ValueError, match="each of the 4 convolutions. Received"):
        box_head(norm="an_gn", num_components=(10, 10))


def test_unknown_norm_is_an_error():
    with pytest.raises(ValueError, match="one of none, bn, gn, an_gn. Received"):
        heads.create_norm("ln", "norm")


def test_an_gn_is_for_the_box_head_only():
    with pytest.raises(ValueError, match="none, bn or gn in the pyramid and the mask"):
        mask_head(norm="an_gn")


def pyramid(**given):
    keras.utils.set_random_seed(0)
    specs = {str(i): tf.TensorShape((None, None, None, 8 * i)) for i in (2, 3, 4, 5)}
    return heads.feature_pyramid(specs, num_filters=64, **given)


def test_pyramid_has_the_sizes_and_channels_of_its_levels():
    maps = {str(i): tf.ones((1, 64 // 2**i, 96 // 2**i, 8 * i)) for i in (2, 3, 4, 5)}
    received = pyramid()(maps)
    assert {level: tuple(each.shape) for level, each in received.items()} == {
        **{"2": (1, 16, 24, 64), "3": (1, 8, 12, 64), "4": (1, 4, 6, 64)},
        **{"5": (1, 2, 3, 64), "6": (1, 1, 2, 64)},
    }
    np.testing.assert_array_equal(received["6"], received["5"][:, ::2, ::2])
    assert pyramid().output_specs["6"][-1] == 64


def test_pyramid_adds_the_enlarged_map_above():
    model = pyramid()
    for variable in model.weights:
        shape = variable.shape
        one = np.zeros(shape, "float32")
        if len(shape) == 4:  # the centre of each kernel passes channels on
            size, channels = shape[0], min(shape[2], shape[3])
            one[size // 2, size // 2, range(channels), range(channels)] = 1
        variable.assign(one)
    rng = np.random.default_rng(0)
    maps = {
        str(i): rng.normal(size=(1, 32 // 2**i, 32 // 2**i, 8 * i)).astype("float32")
        for i in (2, 3, 4, 5)
    }
    received = {level: np.asarray(each) for level, each in model(maps).items()}
    expected = np.zeros((1, 1, 1, 64), "float32")
    for level in ("5", "4", "3", "2"):
        if level != "5":
            expected = expected.repeat(2, axis=1).repeat(2, axis=2)
        channels = maps[level].shape[-1]
        expected[..., :channels] += maps[level]
        np.testing.assert_allclose(received[level], expected, rtol=1e-5, atol=1e-6)


def test_norms_of_the_pyramid_follow_every_convolution():
    added = pyramid(norm="gn").count_params() - pyramid().count_params()
    assert added == 8 * 2 * 64
