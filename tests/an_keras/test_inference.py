"""Looking inside a model."""

import keras
import numpy as np
import pytest
from keras import ops

from an_keras import AttentiveNormalization, collect_attention


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
    assert shared.observer is None


def test_model_without_attention_is_named():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(
        ValueError, match="no AttentiveNormalization. Received: 'plain'"
    ):
        collect_attention(model, np.ones((1, 4)))
