"""Conversion of third-party models: backbones of KerasHub."""

import importlib

import keras
import numpy as np
import pytest

from an_keras import convert_normalization

pytestmark = pytest.mark.slow  # KerasHub comes with `make test-slow`


def outputs(model):
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x))]


def resnet(models):
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        image_shape=(64, 64, 3),
    )


def densenet(models):
    return models.DenseNetBackbone(
        stackwise_num_repeats=[2, 3],
        compression_ratio=0.5,
        growth_rate=8,
        image_shape=(64, 64, 3),
    )


def efficientnet(models, block_type):
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 8],
        stackwise_expansion_ratios=[1, 6],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=[block_type] * 2,
        stackwise_width_coefficients=[1.0] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        input_shape=(64, 64, 3),
    )


def mobilenet(models):
    return models.MobileNetBackbone(
        stackwise_expansion=[[40, 56]],
        stackwise_num_blocks=[2],
        stackwise_num_filters=[[16, 16]],
        stackwise_kernel_size=[[3, 3]],
        stackwise_num_strides=[[2, 1]],
        stackwise_se_ratio=[[None, None]],
        stackwise_activation=[["relu"] * 2],
        stackwise_padding=[[1, 1]],
        output_num_filters=64,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=64,
        squeeze_and_excite=0.5,
        image_shape=(64, 64, 3),
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "converted"),
    [
        (resnet, 4),
        (densenet, 5),
        (lambda models: efficientnet(models, "v1"), 2),
    ],
    ids=["resnet", "densenet", "efficientnet"],
)
def test_functional_backbones_are_converted(build, converted):
    model = build(_models())
    report = []
    new = convert_normalization(model, report=report)
    assert sum(row.action == "converted" for row in report) == converted
    for a, b in zip(outputs(model), outputs(new), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5 * a.std())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "build",
    [mobilenet, lambda models: efficientnet(models, "unfused")],
    ids=["mobilenet", "efficientnet"],
)
def test_norms_inside_custom_layers_are_reported(build):
    with pytest.raises(ValueError, match=r"\(a norm inside a custom layer, \w+Block"):
        convert_normalization(build(_models()))


def _models():
    return importlib.import_module("keras_hub").models
