"""Collecting attention of layers that TensorFlow calls in functions."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from an_keras import AttentiveNormalization, collect_attention

X = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")


class InFunction(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = AttentiveNormalization(3, name="within")

    def build(self, shape):
        self.norm.build(shape)

    @tf.function
    def call(self, x, training=None):
        return self.norm(x, training=training)


def in_a_graph(layer):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layer(AttentiveNormalization(4)(inputs)))


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("was_traced", [True, False])
@pytest.mark.parametrize("wrap", [lambda layer: layer, in_a_graph])
def test_layers_inside_functions_raise(wrap, was_traced, trainable):
    layer = InFunction()
    layer.build((None, 8, 8, 3))
    model = wrap(layer)
    model.trainable = trainable
    if was_traced:
        model(X, training=False)
    with pytest.raises(ValueError, match="tf.function.*Received: .*within"):
        collect_attention(model, X)


def test_attention_can_be_collected_in_a_function():
    model = keras.Sequential([keras.Input((8, 8, 3)), AttentiveNormalization(3)])
    norm = model.layers[-1]
    collected = tf.function(lambda x: collect_attention(model, x))(X)
    np.testing.assert_allclose(collected[norm.path], norm.attention(X), atol=1e-6)


def test_threads_collect_the_attention_of_their_own_images():
    model = in_a_graph(AttentiveNormalization(3))
    sizes = {}

    def observe(n):
        for _ in range(5):
            found = collect_attention(model, np.ones((n, 8, 8, 3), "float32"))
            sizes.setdefault(n, []).append([len(a) for a in found.values()])

    threads = [threading.Thread(target=observe, args=(n,)) for n in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == {n: [[n, n]] * 5 for n in (1, 2, 3, 4)}
