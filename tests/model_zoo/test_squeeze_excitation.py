"""ResNets with squeeze-and-excitation, for comparison with AN."""

import keras
import numpy as np
import pytest
from keras import ops

import model_zoo
from model_zoo.blocks import squeeze_excitation

SMALL = {"input_shape": (32, 32, 3)}


def test_block_computes_the_equation():
    inputs = keras.Input((5, 7, 8))
    model = keras.Model(inputs, squeeze_excitation(inputs, 4, name="se"))
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 8)).astype("float32")
    first, second = (ops.convert_to_numpy(w)[0, 0] for w in model.weights)
    assert first.shape == (8, 2) and second.shape == (2, 8)
    hidden = np.maximum(x.mean((1, 2)) @ first, 0)
    expected = x / (1 + np.exp(-hidden @ second))[:, None, None]
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "position", "reductions"),
    [
        ("resnet34_se", None, {"norm2": 4}),
        ("resnet50_se", None, {"norm2": 4}),
        ("resnet50_se", "norm13", {"norm1": 4, "norm3": 16}),
    ],
)
def test_position_selects_the_norms_that_it_follows(name, position, reductions):
    options = {"position": position} if position else {}
    model = model_zoo.create_model(name, **options, **SMALL)
    found = {
        layer.name.split("_")[2]: layer.input.shape[-1] // layer.filters
        for layer in model.layers
        if layer.name.endswith("_se_conv1")
    }
    assert found == reductions


def test_last_norm_of_a_block_starts_at_0():
    model = model_zoo.create_model("resnet50_se", position="norm3", **SMALL)
    assert not np.any(model.get_layer("stage3_block2_norm3").gamma)
