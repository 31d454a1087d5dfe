"""Properties of every registered network; CI tests one of each kind."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import weights_rule
from keras import ops

import model_zoo
from tests.model_zoo import reference

QUICK = ("resnet8_an", "resnet18_an", "resnet50d_bn", "mobilenetv2_an")
SLOW = (
    *("resnet50_an", "resnext50_32x4d_an", "densenet121_an", "densenet121_bn"),
    *("aognet_cifar_an", "resnet34_se"),
)
# Gradients that are 0: the shift of a linear bottleneck is a constant that the next
# 1x1 convolution passes to a batch norm, which subtracts it.
NO_GRADIENT = {"mobilenetv2": r"stage\d_block\d_norm3/beta"}


def case(name):
    mark = pytest.mark.slow if name in SLOW else pytest.mark.long
    return name if name in QUICK else pytest.param(name, marks=mark)


every_model = pytest.mark.parametrize(
    "name",
    [
        case(name)
        for name in model_zoo.list_models()
        if model_zoo.model_info(name).family != "applications"  # has its own tests
    ],
)


@pytest.fixture
def policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def odd_images(number=2):
    return reference.images("odd", number, 40)[:, :37, :33]


@every_model
def test_outputs_are_finite_and_survive_saving(name, tmp_path):
    model = model_zoo.create_model(
        name, input_shape=(37, 33, 3), classifier_activation=None
    )
    assert np.isfinite(ops.convert_to_numpy(model(odd_images()))).all()
    reference.fill(model)
    logits = ops.convert_to_numpy(model(odd_images()))
    assert logits.shape == (2, model_zoo.model_info(name).classes)
    assert np.isfinite(logits).all()
    assert np.abs(logits[0] - logits[1]).max() > 1e-4 * logits.std()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(odd_images()), logits)


@every_model
def test_parameter_count_matches_the_record(name):
    model = model_zoo.create_model(name)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == model_zoo.model_info(name).parameters


@every_model
def test_mixed_precision_keeps_variables_and_head_in_float32(name, policy):
    policy("mixed_bfloat16")
    model = model_zoo.create_model(name, input_shape=(65, 65, 3))
    assert {str(v.dtype) for v in model.weights} == {"float32"}
    images = reference.images("odd", 2, 72)[:, :65, :65]
    for training in (False, True):
        outputs = model(images, training=training)
        assert ops.dtype(outputs) == "float32"
        assert np.isfinite(ops.convert_to_numpy(outputs)).all()


@every_model
def test_every_weight_gets_a_gradient(name, policy):
    policy("float64")
    model = model_zoo.create_model(
        name, input_shape=(65, 65, 3), classifier_activation=None
    )
    reference.fill(model)
    images = reference.images("train", 4, 72)[:, :65, :65]
    labels = weights_rule.labels("train", 4, model.output_shape[-1])
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    norms = np.array([np.linalg.norm(gradient) for gradient in gradients])
    assert np.isfinite(norms).all()
    least = 1e-9 * np.linalg.norm(norms)
    without = {
        variable.path
        for variable, norm in zip(model.trainable_variables, norms, strict=True)
        if norm <= least
    }
    exception = NO_GRADIENT.get(name.rsplit("_", 1)[0], "none")
    paths = {variable.path for variable in model.trainable_variables}
    assert without == {path for path in paths if re.fullmatch(exception, path)}
