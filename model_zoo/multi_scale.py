"""Feature maps of several sizes out of one network, for detection and segmentation."""

import math

import keras
from keras import layers

ACTIVATIONS = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
)


def multi_scale(
    model: keras.Model, levels: tuple[int, ...] = (2, 3, 4, 5)
) -> keras.Model:
    """The model, returning feature maps at strides 2**level.

    Each is the last activation at its stride through which all paths of the network go:
    the end of a stage of a ResNet, the activation before the pooling of a DenseNet's
    transition, the expansion before the strided convolution of a MobileNetV2.

    Args:
        model: a functional model of one image input, with or without its head.
        levels: 2 is a quarter of the image's height and width, 5 a 32nd.

    Returns:
        A model of the same layers: images -> `{"2": (N, H/4, W/4, C), ...}`, each size
        rounded as the network does.

    Raises:
        ValueError: a model without a map of some level, or with several inputs.
    """
    if not isinstance(model, keras.Model) or len(model.inputs) != 1:
        raise ValueError(
            f"`model` must be a functional model of one input. Received: {model}."
        )
    maps = {}
    for layer, stride in _trunk(model):
        level = math.log2(stride)
        if len(layer.output.shape) == 4 and _is_activation(layer) and level % 1 == 0:
            maps[int(level)] = layer.output
    if not levels or not set(levels) <= set(maps):
        raise ValueError(
            f"`levels` must be some of {sorted(maps)} in {model.name}. "
            f"Received: levels={levels}."
        )
    outputs = {str(level): maps[level] for level in levels}
    return keras.Model(model.inputs[0], outputs, name=f"{model.name}_multi_scale")


def _trunk(model):
    """(layer, stride of its output) where all paths from input to output go through."""
    order = [
        layer for layer in model.layers if not isinstance(layer, layers.InputLayer)
    ]
    position = {id(layer.output): i for i, layer in enumerate(order)}
    strides, last_use = [], [0] * len(order)
    for i, layer in enumerate(order):
        before = [position[key] for key in map(id, _inputs(layer)) if key in position]
        strides.append(_stride(layer) * (strides[before[0]] if before else 1))
        for each in before:
            last_use[each] = i
    in_use_until = 0
    for i, layer in enumerate(order):
        if in_use_until <= i:
            yield layer, strides[i]
        in_use_until = max(in_use_until, last_use[i])


def _inputs(layer):
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _stride(layer) -> float:
    if isinstance(layer, keras.Sequential):
        return math.prod(map(_stride, layer.layers))
    if isinstance(layer, layers.UpSampling2D):
        return 1 / layer.size[0]
    stride = getattr(layer, "strides", 1)
    stride = stride[0] if isinstance(stride, tuple) else stride
    return 1 / stride if isinstance(layer, layers.Conv2DTranspose) else stride


def _is_activation(layer) -> bool:
    activation = getattr(layer, "activation", keras.activations.linear)
    nonlinear = activation not in (None, keras.activations.linear)
    return nonlinear or isinstance(layer, ACTIVATIONS)
