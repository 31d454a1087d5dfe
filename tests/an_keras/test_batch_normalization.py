"""BatchNormalization equals that of Keras, in results and in files."""

import backends
import keras
import numpy as np
import pytest

from an_keras import BatchNormalization


def test_results_and_weight_files_equal_those_of_keras(tmp_path):
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 5, 6)).astype("float32")
    theirs = keras.Sequential(
        [keras.Input((5, 5, 6)), keras.layers.BatchNormalization()]
    )
    ours = keras.Sequential([keras.Input((5, 5, 6)), BatchNormalization()])
    pair = [backends.apply(model, x, training=True) for model in (theirs, ours)]
    np.testing.assert_allclose(*pair, atol=1e-5)
    theirs(x + 1, training=True)
    theirs.save_weights(tmp_path / "bn.weights.h5")
    ours.load_weights(tmp_path / "bn.weights.h5")
    pair = [backends.apply(model, x) for model in (theirs, ours)]
    np.testing.assert_allclose(*pair, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 4), (0, 5, 5, 4), (2, 0, 5, 4)], ids=str)
def test_empty_inputs_leave_the_statistics_unchanged(shape, dtype):
    layer = BatchNormalization(dtype=dtype)
    layer.build((*[None] * (len(shape) - 1), 4))
    before = layer.get_weights()
    layer(np.zeros(shape, dtype), training=True)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_file_loads_after_importing_an_keras(tmp_path):
    model = keras.Sequential([keras.Input((6,)), BatchNormalization()])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is BatchNormalization
