"""One training step of the published networks: loss, gradients, moving statistics.

It runs in float64: in float32, the reference itself varies by more than the tolerance.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import weights_rule

from tests.model_zoo import reference

MOMENTUM = 0.9


@pytest.fixture(autouse=True)
def double():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("name", ["resnet50_an", "mobilenetv2_an"])
def test_step_matches_the_reference(name):
    known, arrays = reference.read(f"{name}_train64")
    model, report = reference.build(name, input_shape=(64, 64, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # as in the reference run
    before = {v.path: v.numpy() for v in model.non_trainable_variables}
    images = reference.images("train64", 4, 64).astype("float64")
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                weights_rule.labels("train64", 4), logits
            )
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])

    np.testing.assert_allclose(loss, known["loss_f64"], rtol=1e-9)
    np.testing.assert_allclose(logits, arrays["logits_f64"], atol=1e-8)

    assert len(gradients) == len(arrays["grad_keys"])
    rows = {key: i for i, key in enumerate(arrays["grad_keys"])}
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        row = rows[report.loaded[variable.path]]
        norm, first = arrays["grad_norms_f64"][row], arrays["grad_first4_f64"][row]
        tolerance = 1e-6 * norm + 1e-8 * known["global_grad_norm_f64"]
        assert abs(np.linalg.norm(gradient) - norm) <= tolerance, variable.path
        ours = in_pytorch_order(gradient.numpy(), variable.name)[:4]
        assert np.abs(ours - first).max() <= tolerance, variable.path

    statistics = known["running_stats_after_step_mean_std"]
    compared = 0
    for variable in model.non_trainable_variables:
        if (key := report.loaded.get(variable.path)) is None:
            continue  # the seed of the dropout layer
        after = variable.numpy()
        if key.endswith("running_var"):
            # PyTorch moves by the unbiased variance, Keras by the biased one.
            n = number_of_values(model, variable)
            moved = after - MOMENTUM * before[variable.path]
            after += moved * (n / (n - 1) - 1)
        np.testing.assert_allclose(
            [after.mean(), after.std()], statistics[key], rtol=1e-6, atol=1e-8
        )
        compared += 1
    assert compared == sum("num_batches" not in key for key in statistics)


def in_pytorch_order(gradient, name):
    if gradient.ndim == 4:
        depthwise = gradient.shape[-1] == 1
        gradient = gradient.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    elif name == "kernel":
        gradient = gradient.T
    return gradient.reshape(-1)


def number_of_values(model, variable):
    """Returns how many values a batch moment is computed over."""
    samples, layer = 4, model.get_layer(variable.path.split("/")[0])
    _, height, width, _ = layer.input.shape
    return samples if "gate" in variable.path else samples * height * width
