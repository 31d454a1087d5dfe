"""Residual networks: the small-image networks of He et al., with BN and with AN."""

import dataclasses

import keras
from keras import layers

from model_zoo import weights as zoo_weights
from model_zoo.blocks import channel_axis, conv, head, image_input, source
from model_zoo.norms import Norms
from model_zoo.registry import register_model


@dataclasses.dataclass(frozen=True)
class Spec:
    depth: int  # basic blocks in each stage
    widths: tuple[int, ...] = (16, 32, 64)
    num_components: tuple[int, ...] = (10, 10, 20)
    input_shape: tuple[int, int, int] = (32, 32, 3)
    smallest: int = 8


# He et al. 2016, section 4.2: 6n + 2 layers, n = 3, 5, 7, 9.
SMALL_IMAGE_SPECS = {20: Spec(3), 32: Spec(5), 44: Spec(7), 56: Spec(9)}


def small_image_resnet(
    spec: Spec,
    attentive: bool,
    include_top: bool = True,
    weights: str | None = None,
    input_tensor=None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int = 10,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    position: str = "norm1",
    num_components: int | tuple[int, ...] | None = None,
    normalization: str = "batch",
    synchronized: bool = False,
    norm_options: dict | None = None,
) -> keras.Model:
    """ResNet for small images: a 3x3 stem and three stages of basic blocks.

    The network of He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition,
    CVPR 2016, section 4.2, with its shortcuts: identity everywhere (option A), that is
    every second pixel and zeros for the new channels where a stage begins; no
    parameters. Nobody has published an AN variant; the first norm of the block and K =
    10, 10, 20 follow the authors' ResNet-34. Convolutions and classifier start as in
    their networks; no norm starts at 0. Keras Applications has no such network.

    Args:
        spec: a row of `SMALL_IMAGE_SPECS`.
        attentive: AN in the places that `position` names; otherwise plain norms.
        include_top: with the classifier.
        weights: `None`, or the path of a `.weights.h5` file of this network.
        input_tensor: `None`, or the tensor to use as the input.
        input_shape: `None` for (32, 32, 3), or (height, width, channels) from 8x8.
        pooling: without the top: `None`, `"avg"` or `"max"`.
        classes: number of classes.
        classifier_activation: of the classifier; `None` returns logits.
        name: of the model.
        position: `"norm1"`, `"norm2"`, `"norm12"` or `"all"` (with the stem).
        num_components: K; `None` for 10, 10, 20, an int, or one per stage.
        normalization: `"batch"` or `"group"`, the latter with gcd(32, C) groups.
        synchronized: batch statistics over all replicas.
        norm_options: further arguments of every `AttentiveNormalization`.

    Raises:
        ValueError: for arguments outside of these ranges.
    """
    norm = Norms(
        attentive=attentive,
        position=position,
        block_norms=2,
        num_components=(
            spec.num_components if num_components is None else num_components
        ),
        stages=len(spec.widths),
        normalization=normalization,
        synchronized=synchronized,
        norm_options=norm_options,
    )
    inputs = image_input(input_tensor, input_shape, spec.input_shape, spec.smallest)
    x = conv(inputs, spec.widths[0], 3, name="stem_conv")
    x = norm(x, "stem", 0, name="stem_norm")
    x = layers.ReLU(name="stem_relu")(x)
    for i, width in enumerate(spec.widths):
        for j in range(spec.depth):
            stride = 2 if i > 0 and j == 0 else 1
            block = f"stage{i + 1}_block{j + 1}"
            x = basic_block(x, width, stride, norm, stage=i, name=block)
    outputs = head(x, include_top, pooling, classes, classifier_activation)
    model = keras.Model(source(inputs), outputs, name=name)
    zoo_weights.load(model, weights)
    return model


def basic_block(x, width: int, stride: int, norm: Norms, stage: int, name: str):
    """relu(norm2(conv3x3(relu(norm1(conv3x3(x))))) + x)."""
    shortcut = identity_shortcut(x, width, stride, name=f"{name}_shortcut")
    x = conv(x, width, 3, stride, name=f"{name}_conv1")
    x = norm(x, "norm1", stage, name=f"{name}_norm1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv(x, width, 3, name=f"{name}_conv2")
    x = norm(x, "norm2", stage, name=f"{name}_norm2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def identity_shortcut(x, width: int, stride: int, name: str):
    """Option A: every `stride`-th pixel, and zeros for the channels `x` lacks."""
    if stride > 1:
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_subsample")(x)
    missing = width - x.shape[channel_axis()]
    if missing:
        padding = (missing // 2, missing - missing // 2)
        # Keras pads two neighbouring axes. Named in the other data format, they are
        # (width, channels) of channels_last, (channels, height) of channels_first.
        if channel_axis() == -1:
            padding, axes = ((0, 0), padding), "channels_first"
        else:
            padding, axes = (padding, (0, 0)), "channels_last"
        x = layers.ZeroPadding2D(padding, data_format=axes, name=f"{name}_pad")(x)
    return x


def _register_small_image_resnet(depth: int, kind: str) -> None:
    spec, model_name = SMALL_IMAGE_SPECS[depth], f"resnet{depth}_{kind}"

    @register_model(
        model_name,
        family="resnet",
        lineage="He et al. 2016, section 4.2 (small images, option A shortcuts)",
        input_shape=spec.input_shape,
    )
    def build(name=model_name, **kwargs):
        return small_image_resnet(spec, kind == "an", name=name, **kwargs)


for _depth in SMALL_IMAGE_SPECS:
    for _kind in ("bn", "an"):
        _register_small_image_resnet(_depth, _kind)
