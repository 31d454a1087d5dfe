"""DenseNet as published by the authors of attentive normalization.

Huang et al., Densely Connected Convolutional Networks, CVPR 2017. As in the authors'
iVMCL-Release, AN replaces the second norm of each dense layer. Unlike in
`keras.applications`, epsilon is 1e-5; otherwise the networks are the same.
"""

import dataclasses

from keras import layers

from model_zoo.blocks import channel_axis, conv, max_pool
from model_zoo.network import NetworkSpec, register_network
from model_zoo.norms import Norms


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseNetSpec(NetworkSpec):
    """A DenseNet.

    Attributes:
        depths: Number of dense layers in each stage.
        growth: Channels that a dense layer adds.
        width: Channels of the stem.
    """

    depths: tuple[int, ...]
    growth: int = 32
    width: int = 64

    def features(self, x, norm: Norms):
        x = conv(x, self.width, 7, 2, name="stem_conv")
        x = norm(x, "stem", 0, name="stem_norm")
        x = layers.ReLU(name="stem_relu")(x)
        x = max_pool(x, name="stem_pool")
        last = len(self.depths) - 1
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                x = dense_layer(x, self.growth, norm, i, f"stage{i + 1}_block{j + 1}")
            if i < last:
                x = transition(x, norm, i, name=f"transition{i + 1}")
        x = norm(x, "last", last, name="last_norm")
        return layers.ReLU(name="last_relu")(x)


def dense_layer(x, growth: int, norm: Norms, stage: int, name: str):
    """Appends `growth` channels to `x`: 1x1 to 4 * growth, 3x3, each after a norm."""
    inputs = x
    x = norm(x, "norm1", stage, name=f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv(x, 4 * growth, 1, name=f"{name}_conv1")
    x = norm(x, "norm2", stage, name=f"{name}_norm2")
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = conv(x, growth, 3, name=f"{name}_conv2")
    return layers.Concatenate(axis=channel_axis(), name=f"{name}_concat")([inputs, x])


def transition(x, norm: Norms, stage: int, name: str):
    """Halves the channels and the size."""
    x = norm(x, "transition", stage, name=f"{name}_norm")
    x = layers.ReLU(name=f"{name}_relu")(x)
    x = conv(x, x.shape[channel_axis()] // 2, 1, name=f"{name}_conv")
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


KERAS = "keras.applications.DenseNet{}, with another epsilon and momentum"
# Huang et al., table 1; 161 has growth 48.
TABLE = {
    121: {"depths": (6, 12, 24, 16)},
    161: {"depths": (6, 12, 36, 24), "growth": 48, "width": 96},
    169: {"depths": (6, 12, 32, 32)},
    201: {"depths": (6, 12, 48, 32)},
}
SPECS = {
    f"densenet{depth}": DenseNetSpec(
        num_components=(10, 10, 20, 20),
        block_norms=2,
        lineage="Huang et al. 2017; AN as in the authors' iVMCL-Release",
        **row,
        **({"counterpart": KERAS.format(depth)} if depth != 161 else {}),
    )
    for depth, row in TABLE.items()
}

for _name, _spec in SPECS.items():
    for _variant in ("bn", "an"):
        register_network(_name, _variant, "densenet", _spec)
