"""Helpers for tests that run on every backend of Keras."""

import contextlib

import keras
import numpy as np
from keras import ops

# keras.ops keeps float64 on TensorFlow; on JAX and PyTorch it reduces in float32.
KEEPS_DOUBLE = keras.backend.backend() == "tensorflow"


# The compiled passes of TensorFlow, and plain operations.
PATHS = ("always", "never") if keras.backend.backend() == "tensorflow" else ("plain",)


def path(name):
    """Returns a context in which layers use the path `name`, one of `PATHS`."""
    if name == "plain":
        return contextlib.nullcontext()
    from an_keras.kernels_tf import kernels

    return kernels(name)


def apply(layer, *args, **kwargs):
    """Returns the layer's output as a NumPy array."""
    return ops.convert_to_numpy(layer(*args, **kwargs))


def run(layer, x, dy, training):
    """Calls a built layer with loss = sum(y * dy), and updates its statistics.

    Returns:
        y, the gradient of x, and the gradients of the trainable variables by path, all
        as NumPy arrays.
    """
    backend = keras.backend.backend()
    x, dy = (ops.convert_to_tensor(array) for array in (x, dy))
    y, dx, gradients = _RUNS[backend](layer, x, dy, training)
    paths = [variable.path for variable in layer.trainable_variables]
    arrays = [ops.convert_to_numpy(gradient) for gradient in gradients]
    named = dict(zip(paths, arrays, strict=True))
    return ops.convert_to_numpy(y), ops.convert_to_numpy(dx), named


def _tensorflow(layer, x, dy, training):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        loss = tf.reduce_sum(y * tf.cast(dy, y.dtype))
    variables = [variable.value for variable in layer.trainable_variables]
    dx, *gradients = tape.gradient(loss, [x, *variables])
    return y, dx, gradients


def _jax(layer, x, dy, training):
    import jax

    def loss(trainable, x):
        y, state = layer.stateless_call(trainable, non_trainable, x, training=training)
        return ops.sum(y * dy), (y, state)

    trainable = [variable.value for variable in layer.trainable_variables]
    non_trainable = [variable.value for variable in layer.non_trainable_variables]
    differentiate = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (gradients, dx), (y, state) = differentiate(trainable, x)
    for variable, value in zip(layer.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return y, dx, gradients


def _torch(layer, x, dy, training):
    x = x.detach().clone().requires_grad_()
    variables = [variable.value for variable in layer.trainable_variables]
    for variable in variables:
        variable.grad = None
    y = layer(x, training=training)
    (y * dy.to(y.dtype)).sum().backward()
    return y, x.grad, [variable.grad for variable in variables]


_RUNS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def finite(array):
    """Returns whether all values of an array of any floating type are finite."""
    return np.isfinite(ops.convert_to_numpy(ops.cast(array, "float32"))).all()
