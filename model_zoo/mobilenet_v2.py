"""MobileNetV2 as published by the authors of attentive normalization.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018. As
in Li, Sun and Wu, Attentive Normalization, ECCV 2020, AN follows the depthwise
convolution. Unlike in `keras.applications.MobileNetV2`, the padding is symmetric,
epsilon is 1e-5, and channels are rounded only on request.
"""

import dataclasses
from typing import ClassVar

import keras
from keras import layers

from an_keras import arguments
from model_zoo.blocks import channel_axis, conv, depthwise_conv
from model_zoo.network import NetworkSpec, register_network
from model_zoo.norms import Norms

# Expansion, channels, blocks, stride (Sandler et al., table 2).
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FIRST, LAST = 32, 1280


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV2Spec(NetworkSpec):
    """MobileNetV2.

    Attributes:
        width_multiplier: Multiplier of all channels, > 0 and at most 100. The last
            convolution never has fewer than 1280.
        round_channels: Whether to round channels to multiples of 8, as in the
            refactored release. The published networks truncate them.
    """

    width_multiplier: float = 1.0
    round_channels: bool = False
    options: ClassVar[tuple[str, ...]] = (
        *NetworkSpec.options,
        "width_multiplier",
        "round_channels",
    )

    def __post_init__(self):
        arguments.require_number("width_multiplier", self.width_multiplier)
        if not 0 < self.width_multiplier <= 100:
            raise ValueError(
                "`width_multiplier` must be > 0 and at most 100. "
                f"Received: width_multiplier={self.width_multiplier}."
            )

    def scaled(self, channels: int, multiplier: float) -> int:
        scaled = channels * multiplier
        if not self.round_channels:
            return max(1, int(scaled))
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def features(self, x, norm: Norms):
        first = self.scaled(FIRST, self.width_multiplier)
        x = conv(x, first, 3, 2, name="stem_conv")
        x = norm(x, "stem", 0, name="stem_norm")
        x = layers.ReLU(6.0, name="stem_relu")(x)
        for i, (expansion, channels, blocks, stride) in enumerate(ROWS):
            filters = self.scaled(channels, self.width_multiplier)
            for j in range(blocks):
                name = f"stage{i + 1}_block{j + 1}"
                at = stride if j == 0 else 1
                x = inverted_residual(x, expansion, filters, at, norm, i, name)
        last = self.scaled(LAST, max(1.0, self.width_multiplier))
        x = conv(x, last, 1, name="last_conv")
        x = norm(x, "last", len(ROWS) - 1, name="last_norm")
        return layers.ReLU(6.0, name="last_relu")(x)

    def classifier_initializers(self):
        return keras.initializers.RandomNormal(stddev=0.01), "zeros"


def inverted_residual(
    x, expansion: int, filters: int, stride: int, norm: Norms, stage: int, name: str
):
    """1x1 expansion, 3x3 depthwise, linear 1x1; adds `x` if the shapes match."""
    inputs, channels = x, x.shape[channel_axis()]
    if expansion != 1:
        x = conv(x, expansion * channels, 1, name=f"{name}_conv1")
        x = norm(x, "norm1", stage, name=f"{name}_norm1")
        x = layers.ReLU(6.0, name=f"{name}_relu1")(x)
    x = depthwise_conv(x, 3, stride, name=f"{name}_conv2")
    x = norm(x, "norm2", stage, name=f"{name}_norm2")
    x = layers.ReLU(6.0, name=f"{name}_relu2")(x)
    x = conv(x, filters, 1, name=f"{name}_conv3")
    x = norm(x, "norm3", stage, name=f"{name}_norm3")
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


SPECS = {
    "mobilenetv2": MobileNetV2Spec(
        num_components=(5, 5, 5, 5, 10, 10, 10),
        dropout=0.2,
        lineage="Sandler et al. 2018; AN as in Li et al. 2020",
        counterpart=(
            "keras.applications.MobileNetV2, with uneven padding, rounded channels, "
            "another epsilon and momentum"
        ),
    )
}

for _name, _spec in SPECS.items():
    for _variant in ("bn", "an"):
        register_network(_name, _variant, "mobilenetv2", _spec)
