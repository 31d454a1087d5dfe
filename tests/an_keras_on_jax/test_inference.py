"""Collecting attention of layers that JAX calls in compiled functions."""

import jax
import keras
import numpy as np
import pytest

from an_keras import AttentiveNormalization, collect_attention


class HalfCompiled(keras.Model):
    def __init__(self):
        super().__init__()
        self.plain = AttentiveNormalization(3, name="plain")
        self.norm = AttentiveNormalization(3, name="within")
        self.compiled = jax.jit(lambda x: self.norm(x))

    def build(self, shape):
        self.plain.build(shape)
        self.norm.build(shape)

    def call(self, x):
        return self.compiled(self.plain(x))


@pytest.mark.parametrize("was_compiled", [True, False])
def test_layers_inside_compiled_functions_raise(was_compiled):
    model, x = HalfCompiled(), np.ones((2, 4, 4, 3), "float32")
    model.build(x.shape)
    if was_compiled:
        model(x)
    with pytest.raises(ValueError, match=r"jax.jit.*Received: .*within\."):
        collect_attention(model, x)
