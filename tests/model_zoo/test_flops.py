"""Multiply-adds, counted by hand and compared with published figures."""

import keras
import pytest
from keras import layers

import model_zoo
from an_keras import AttentiveNormalization, BatchNormalization
from model_zoo.flops import MultiplyAdds, multiply_adds


def count(shape, *sequence):
    return multiply_adds(keras.Sequential([keras.Input(shape), *sequence]))


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((8, 8, 4), layers.Conv2D(6, 3, padding="same"), 64 * 9 * 4 * 6),
        ((8, 8, 4), layers.Conv2D(6, 3, strides=2, padding="same"), 16 * 9 * 4 * 6),
        ((8, 8, 4), layers.Conv2D(6, 3), 36 * 9 * 4 * 6),
        ((8, 8, 4), layers.Conv2D(6, 3, groups=2, padding="same"), 64 * 9 * 2 * 6),
        ((4, 8, 8), layers.Conv2D(6, 1, data_format="channels_first"), 64 * 4 * 6),
        ((8, 4), layers.Conv1D(6, 5, padding="same"), 8 * 5 * 4 * 6),
        ((8, 8, 4), layers.DepthwiseConv2D(3, padding="same"), 64 * 9 * 4),
        ((8, 8, 4), layers.SeparableConv2D(6, 3, padding="same"), 64 * (9 * 4 + 4 * 6)),
        ((8, 8, 4), layers.Conv2DTranspose(6, 3, strides=2), 64 * 9 * 4 * 6),
        ((4,), layers.Dense(6), 24),
        ((5, 7, 4), layers.Dense(6), 35 * 24),
        ((8, 8, 4), layers.MaxPooling2D(), 0),
        ((8, 8, 4), layers.ReLU(), 0),
        ((8, 8, 4), layers.PReLU(), 0),
    ],
)
def test_layers_are_counted(shape, layer, expected):
    assert count(shape, layer) == MultiplyAdds(network=expected)


@pytest.mark.parametrize(
    ("layer", "norms", "attention"),
    [
        (layers.BatchNormalization(), 256, 0),
        (BatchNormalization(), 256, 0),
        (layers.GroupNormalization(2), 3 * 256, 0),
        (layers.LayerNormalization(), 3 * 256, 0),
        (layers.RMSNormalization(), 2 * 256, 0),
        (layers.Normalization(mean=0.5, variance=0.2), 256, 0),
        # two sums for each number, gate (4, 5), two tables (5, 4)
        (AttentiveNormalization(5), 3 * 256 + 60, 2 * 256 + 60),
        (
            AttentiveNormalization(5, gate_hidden_units=3),
            3 * 256 + 3 * 9 + 40,
            2 * 256 + 3 * 9 + 40,
        ),
        (
            AttentiveNormalization(5, normalization="group", groups=2),
            5 * 256 + 60,
            2 * 256 + 60,
        ),
    ],
)
def test_norms_are_counted_apart(layer, norms, attention):
    assert count((8, 8, 4), layer) == MultiplyAdds(0, norms, attention)


def test_every_call_of_a_layer_and_nested_models_count():
    images = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same")
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 1)])
    model = keras.Model(images, inner(shared(shared(images))))
    assert multiply_adds(model).network == 2 * 64 * 9 * 16 + 64 * 16


# Published, in billions: He et al. 2016 and the paper's code; where a plain count
# differs, both are in docs/networks.md.
@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [
        ("resnet50_an", 4.09, 0.01),
        ("mobilenetv2_an", 0.30, 0.01),  # Sandler et al. 2018
        ("aognet_12m_an", 2.19, 0.05),
    ],
)
def test_counts_agree_with_published_ones(name, billions, tolerance):
    counted = multiply_adds(model_zoo.create_model(name)).network
    assert counted == pytest.approx(billions * 1e9, rel=tolerance)


def test_what_cannot_be_counted_is_named():
    with pytest.raises(ValueError, match="Expected static sizes. Received: 'conv"):
        count((None, None, 3), layers.Conv2D(4, 3, name="conv"))
    with pytest.raises(ValueError, match="'words' of class Embedding"):
        count((5,), layers.Embedding(10, 4, name="words"))
    with pytest.raises(ValueError, match="built functional or Sequential model"):
        multiply_adds(keras.Sequential([layers.Dense(3)]))
