"""Feature maps at strides 4 to 32 of published and other networks."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import model_zoo
from tests.model_zoo import reference


@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18_an", (64, 128, 256, 512)),
        ("mobilenetv2_an", (144, 192, 576, 1280)),
        *(
            pytest.param(name, channels, marks=pytest.mark.slow)
            for name, channels in (
                ("resnet50_an", (256, 512, 1024, 2048)),
                ("resnet50d_bn", (256, 512, 1024, 2048)),
                ("densenet121_an", (256, 512, 1024, 1024)),
            )
        ),
    ],
)
def test_maps_have_the_expected_stride_and_channels(name, channels, include_top):
    shape = (None, None, 3)
    model = model_zoo.create_model(name, include_top=include_top, input_shape=shape)
    maps = model_zoo.multi_scale(model)(np.zeros((1, 64, 96, 3), "float32"))
    assert {level: tuple(x.shape) for level, x in maps.items()} == {
        str(level): (1, 64 >> level, 96 >> level, c)
        for level, c in zip((2, 3, 4, 5), channels, strict=True)
    }


def test_maps_match_the_reference():
    _, arrays = reference.read("resnet50_an")
    model, _ = reference.build("resnet50_an")
    maps = model_zoo.multi_scale(model)(reference.images("eval224", 2, 224))
    for stage in (1, 2, 3, 4):
        mean = ops.convert_to_numpy(maps[str(stage + 1)]).mean((1, 2))[:, :8]
        expected = arrays[f"act__layer{stage}__chanmean8"]
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-4)


def test_odd_sizes_and_single_levels_work():
    model = model_zoo.create_model("resnet18_bn", input_shape=(65, 33, 3))
    maps = model_zoo.multi_scale(model, levels=(1, 5))(np.zeros((1, 65, 33, 3)))
    assert maps["1"].shape == (1, 33, 17, 64)
    assert maps["5"].shape == (1, 3, 2, 512)


def test_keras_applications_work():
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))
    maps = model_zoo.multi_scale(model)(np.zeros((1, 64, 64, 3)))
    assert [x.shape[-1] for x in maps.values()] == [256, 512, 1024, 2048]


def conv(x, filters):
    return layers.Conv2D(filters, 3, 2, padding="same", activation="relu")(x)


def test_operations_other_than_layers_are_followed():
    inputs = keras.Input((64, 64, 3))
    x = conv(inputs, 4)
    model = keras.Model(inputs, conv(ops.add(x, ops.relu(x)), 8))
    maps = model_zoo.multi_scale(model, levels=(1, 2))(np.zeros((1, 64, 64, 3)))
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        "1": (1, 32, 32, 4),
        "2": (1, 16, 16, 8),
    }


def test_nested_models_are_refused():
    inputs = keras.Input((64, 64, 3))
    inner = keras.Model(inputs, conv(inputs, 4), name="inner")
    with pytest.raises(ValueError, match="single graph of layers.*the model inner"):
        model_zoo.multi_scale(keras.Model(inputs, conv(inner(inputs), 8)))


def test_shared_activation_is_not_a_map():
    inputs, relu = keras.Input((64, 64, 3)), layers.ReLU()
    x = inputs
    for _ in range(3):
        x = relu(layers.Conv2D(4, 3, 2, padding="same")(x))
    model = keras.Model(inputs, conv(x, 8))
    assert list(model_zoo.multi_scale(model, levels=4).output) == ["4"]
    with pytest.raises(ValueError, match=r"must be among \[4\]"):
        model_zoo.multi_scale(model, levels=(1, 2, 3))


def test_sequential_model_works():
    options = {"padding": "same", "activation": "relu"}
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), layers.Conv2D(4, 3, 4, **options)]
    )
    maps = model_zoo.multi_scale(model, levels=[2])(np.zeros((1, 64, 64, 3)))
    assert maps["2"].shape == (1, 16, 16, 4)


def test_layers_are_shared_with_the_model():
    model = model_zoo.create_model("resnet18_an", input_shape=(32, 32, 3))
    shared = model_zoo.multi_scale(model)
    assert shared.get_layer("stage1_block1_norm1") is model.get_layer(
        "stage1_block1_norm1"
    )


@pytest.mark.parametrize("levels", [(1.0,), (True,), [[2]], "2", {"2"}])
def test_non_integer_levels_raise_type_error(levels):
    model = model_zoo.create_model("resnet8_bn")
    with pytest.raises(TypeError, match="`levels` must be an integer"):
        model_zoo.multi_scale(model, levels)


def test_levels_may_be_numpy_integers():
    maps = model_zoo.multi_scale(model_zoo.create_model("resnet8_bn"), np.array([1]))
    assert list(maps.output) == ["1"]


def test_unknown_levels_are_reported():
    model = model_zoo.create_model("resnet18_an", input_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="among \\[1, 2, 3, 4, 5\\] for resnet18_an"):
        model_zoo.multi_scale(model, levels=(2, 6))


def test_unsupported_models_are_refused():
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="functional model with one input"):
        model_zoo.multi_scale(keras.Model([a, b], layers.Add()([a, b])))
    with pytest.raises(ValueError, match="functional model with one input"):
        model_zoo.multi_scale(keras.Sequential([layers.Conv2D(3, 3)]))
