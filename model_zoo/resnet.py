"""Residual networks: ResNet and ResNeXt as published, and ResNet for small images.

He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016; Xie et
al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017; Zagoruyko
and Komodakis, Wide Residual Networks, BMVC 2016; the AN variants are those of Li, Sun
and Wu, Attentive Normalization, ECCV 2020. Unlike in `keras.applications`, the stride
is in the 3x3 convolution, convolutions have no bias, and epsilon is 1e-5; the last norm
of each block starts at 0.
"""

import dataclasses
from collections.abc import Callable

from keras import layers

from model_zoo.blocks import channel_axis, conv, max_pool
from model_zoo.network import NetworkSpec, register_network
from model_zoo.norms import Norms


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetSpec(NetworkSpec):
    """A residual network.

    Attributes:
        depths: Number of blocks in each stage.
        block, stem, shortcut: Functions that build these parts, defined below.
        widths: Channels of the 3x3 convolutions in each stage, before the next two
            fields widen those of bottlenecks.
        groups, width_per_group: Groups of the 3x3 convolutions of bottlenecks, and the
            channels of a group in a stage of width 64: above 1 in ResNeXt, and 128 in
            wide networks.
        zero_gamma: Whether the last norm of each block starts at 0.
    """

    depths: tuple[int, ...]
    block: Callable
    stem: Callable
    shortcut: Callable
    widths: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    width_per_group: int = 64
    zero_gamma: bool = True

    def features(self, x, norm: Norms):
        x = self.stem(x, self.widths[0], norm)
        for i, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                name = f"stage{i + 1}_block{j + 1}"
                x = self.block(x, width, stride, self, norm, stage=i, name=name)
        return x


def conv_norm_relu(x, filters, kernel_size, stride, norm, name):
    x = conv(x, filters, kernel_size, stride, name=f"stem_conv{name}")
    x = norm(x, "stem", 0, name=f"stem_norm{name}")
    return layers.ReLU(name=f"stem_relu{name}")(x)


def small_stem(x, width: int, norm: Norms):
    """3x3 convolution, for small images."""
    return conv_norm_relu(x, width, 3, 1, norm, name="")


def stem_7x7(x, width: int, norm: Norms):
    """7x7 convolution and 3x3 max pooling, stride 2 each (stem A, 120 epochs)."""
    x = conv_norm_relu(x, width, 7, 2, norm, name="")
    return max_pool(x, name="stem_pool")


def stem_3x3(x, width: int, norm: Norms):
    """Three 3x3 convolutions and 2x2 max pooling (stem B, 200 epochs)."""
    x = conv_norm_relu(x, width // 2, 3, 2, norm, name="1")
    x = conv_norm_relu(x, width // 2, 3, 1, norm, name="2")
    x = conv_norm_relu(x, width, 3, 1, norm, name="3")
    return layers.MaxPooling2D(2, name="stem_pool")(x)


def basic_block(x, width, stride, spec: ResNetSpec, norm: Norms, stage, name: str):
    """relu(norm2(conv3x3(relu(norm1(conv3x3(x))))) + shortcut(x))."""
    shortcut = spec.shortcut(x, width, stride, norm, stage, name=f"{name}_shortcut")
    x = conv(x, width, 3, stride, name=f"{name}_conv1")
    x = norm(x, "norm1", stage, name=f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv(x, width, 3, name=f"{name}_conv2")
    x = norm(x, "norm2", stage, name=f"{name}_norm2", zero=spec.zero_gamma)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def bottleneck(x, width, stride, spec: ResNetSpec, norm: Norms, stage, name: str):
    """1x1, 3x3 with the stride and the groups, 1x1 to 4 * width; adds the shortcut."""
    filters, groups = 4 * width, spec.groups
    width = width * spec.width_per_group // 64 * groups
    shortcut = spec.shortcut(x, filters, stride, norm, stage, name=f"{name}_shortcut")
    x = conv(x, width, 1, name=f"{name}_conv1")
    x = norm(x, "norm1", stage, name=f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv(x, width, 3, stride, groups=groups, name=f"{name}_conv2")
    x = norm(x, "norm2", stage, name=f"{name}_norm2")
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = conv(x, filters, 1, name=f"{name}_conv3")
    x = norm(x, "norm3", stage, name=f"{name}_norm3", zero=spec.zero_gamma)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu3")(x)


def projection(x, filters: int, stride: int, norm: Norms, stage: int, name: str):
    """Identity, or a 1x1 convolution and a norm where the shape changes."""
    if stride == 1 and x.shape[channel_axis()] == filters:
        return x
    x = conv(x, filters, 1, stride, name=f"{name}_conv")
    return norm(x, "shortcut", stage, name=f"{name}_norm")


def pooled_projection(x, filters: int, stride: int, norm: Norms, stage, name: str):
    """`projection` after 2x2 average pooling, which replaces its stride."""
    if stride > 1:
        # "same": at the edge of an odd size, only existing pixels are averaged.
        pool = layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")
        x = pool(x)
    return projection(x, filters, 1, norm, stage, name)


def identity(x, filters: int, stride: int, norm: Norms, stage: int, name: str):
    """Option A: every `stride`-th pixel, and zeros for the missing channels."""
    if stride > 1:
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    missing = filters - x.shape[channel_axis()]
    if missing:
        padding = (missing // 2, missing - missing // 2)
        # Keras pads two adjacent axes. In the other data format, these are
        # (width, channels) of channels_last, (channels, height) of channels_first.
        if channel_axis() == -1:
            padding, axes = ((0, 0), padding), "channels_first"
        else:
            padding, axes = (padding, (0, 0)), "channels_last"
        x = layers.ZeroPadding2D(padding, data_format=axes, name=f"{name}_pad")(x)
    return x


KERAS_RESNET = "with strides in 1x1 convolutions, biases, another epsilon"
PAPER = "He et al. 2016; AN as in Li et al. 2020"
STEM_A = {"stem": stem_7x7, "shortcut": projection, "num_components": (10, 10, 20, 20)}
STEM_B = {**STEM_A, "stem": stem_3x3, "shortcut": pooled_projection}
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

SPECS = {
    # He et al. 2016, section 4.2: 6n + 2 layers, n = 3, 5, 7, 9; n = 1 is our own.
    # No AN variant was published: position and K follow the authors' ResNet-34.
    f"resnet{6 * n + 2}": ResNetSpec(
        depths=(n, n, n),
        widths=(16, 32, 64),
        num_components=(10, 10, 20),
        position="norm1",
        block=basic_block,
        block_norms=2,
        stem=small_stem,
        shortcut=identity,
        zero_gamma=False,
        input_shape=(32, 32, 3),
        smallest=8,
        classes=10,
        lineage="He et al. 2016, section 4.2 (small images, option A shortcuts)",
    )
    for n in (1, 3, 5, 7, 9)
}
SPECS |= {
    # He et al., Identity Mappings in Deep Residual Networks, ECCV 2016: 9n + 2 layers,
    # n = 18; n = 3 is our own. Bottlenecks and the place of AN are those of ResNet-50.
    f"resnet{9 * n + 2}": ResNetSpec(
        depths=(n, n, n),
        widths=(16, 32, 64),
        num_components=(10, 10, 20),
        block=bottleneck,
        stem=small_stem,
        shortcut=projection,
        input_shape=(32, 32, 3),
        smallest=8,
        classes=10,
        lineage="He et al. 2016, Identity Mappings, original unit (small images)",
    )
    for n in (3, 18)
}
# Our own, for detectors of small objects that train on two cores: ResNet-50 with one
# block in each stage and a quarter of the width.
SPECS["resnet14_w16"] = ResNetSpec(
    depths=(1, 1, 1, 1),
    widths=(16, 32, 64, 128),
    block=bottleneck,
    input_shape=(64, 64, 3),
    classes=10,
    lineage="our own: ResNet-50 with one block in each stage and a quarter of the "
    "width, for small detectors",
    **STEM_A | {"num_components": (5, 5, 5, 5)},
)
SPECS |= {
    f"resnet{depth}": ResNetSpec(
        depths=DEPTHS[depth],
        position="norm1",
        block=basic_block,
        block_norms=2,
        lineage=PAPER,
        **STEM_A,
    )
    for depth in (18, 34)
}
SPECS |= {
    f"resnet{depth}{suffix}": ResNetSpec(
        depths=DEPTHS[depth],
        block=bottleneck,
        lineage=PAPER + about,
        counterpart=f"keras.applications.ResNet{depth}, {KERAS_RESNET}{more}",
        **stem,
    )
    for depth in (50, 101, 152)
    for suffix, stem, about, more in (
        ("", STEM_A, "", ""),
        (
            "d",
            STEM_B,
            ", 200 epochs: 3x3 stem, averaged shortcuts",
            ", a 7x7 stem and strided shortcuts",
        ),
    )
}
SPECS |= {
    f"resnext{depth}_{groups}x{width}d": ResNetSpec(
        depths=DEPTHS[depth],
        block=bottleneck,
        groups=groups,
        width_per_group=width,
        lineage="Xie et al. 2017; AN as in the authors' code, without a result",
        **STEM_A,
    )
    for depth, groups, width in ((50, 32, 4), (101, 32, 8), (101, 64, 4))
}
SPECS["wide_resnet50_2"] = ResNetSpec(
    depths=DEPTHS[50],
    block=bottleneck,
    width_per_group=128,
    lineage="Zagoruyko and Komodakis 2016, as in torchvision; AN was not published",
    counterpart=f"keras.applications.ResNet50, half as wide inside, {KERAS_RESNET}",
    **STEM_A,
)

for _name, _spec in SPECS.items():
    for _variant in ("bn", "an"):
        register_network(_name, _variant, "resnet", _spec)

# The authors' comparison. The numbers of parameters are those of their code, the order
# of the operations is that of Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
for _name in ("resnet34", "resnet50"):
    _spec = dataclasses.replace(
        SPECS[_name],
        position="norm2",
        lineage="He et al. 2016; squeeze-and-excitation as in Hu et al. 2018, with "
        "the number of parameters of the authors' comparison",
    )
    register_network(_name, "se", "resnet", _spec)
