"""Second-order gradients and compiled training steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from an_keras import AttentiveNormalization


@pytest.mark.parametrize(
    "arguments", [{}, {"normalization": "group", "groups": 2}], ids=["batch", "group"]
)
def test_second_order_gradients_equal_finite_differences(arguments):
    layer = AttentiveNormalization(3, dtype="float64", **arguments)
    layer.build((3, 4, 5, 4))
    rng = np.random.default_rng(0)
    x, direction, weight = rng.normal(size=(3, 3, 4, 5, 4))

    def slope(x):
        """Returns a scalar's slope along `direction`, and the gradient of the slope."""
        x = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(tf.sin(layer(x, training=True)) * weight)
            first = tf.reduce_sum(inner.gradient(y, x) * direction)
        return float(first), outer.gradient(first, x).numpy()

    _, second = slope(x)
    probe = rng.normal(size=x.shape)
    step = 1e-5
    difference = (slope(x + step * probe)[0] - slope(x - step * probe)[0]) / (2 * step)
    assert np.sum(second * probe) == pytest.approx(difference, rel=1e-5)


def test_compiled_training_equals_plain_training():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6, 6, 4)).astype("float32")
    y = rng.normal(size=(32, 2)).astype("float32")
    weights = {}
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((6, 6, 4)),
                AttentiveNormalization(3),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(2),
            ]
        )
        model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=jit_compile)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        weights[jit_compile] = model.get_weights()
    for plain, compiled in zip(weights[False], weights[True], strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)
