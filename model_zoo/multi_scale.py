"""Feature maps of several sizes out of one network, for detection and segmentation."""

import math
from collections.abc import Iterable

import keras
from keras import layers

from an_keras import arguments, graph

ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)


def multi_scale(
    model: keras.Model, levels: tuple[int, ...] = (2, 3, 4, 5)
) -> keras.Model:
    """The model, returning feature maps at strides 2**level.

    Each is the last activation at its stride through which all paths of the network go:
    the end of a stage of a ResNet, the activation before the pooling of a DenseNet's
    transition, the expansion before the strided convolution of a MobileNetV2.

    Strides are those that layers name (`strides`, `UpSampling2D.size`); other ways to
    change the size, as `Resizing`, are not followed.

    Args:
        model: a functional model of one image input, with or without its head.
        levels: 2 is a quarter of the image's height and width, 5 a 32nd.

    Returns:
        A model of the same layers: images -> `{"2": (N, H/4, W/4, C), ...}`, each size
        rounded as the network does.

    Raises:
        TypeError: levels that are no integers.
        ValueError: a model without a map of some level, with several inputs, or with
            other models inside.
    """
    if not getattr(model, "built", False) or len(getattr(model, "inputs", ())) != 1:
        raise ValueError(
            f"`model` must be a functional model of one input. Received: {model}."
        )
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if nested:
        raise ValueError(
            f"`model` must be one graph of layers. Received: {model.name}, which holds "
            f"the model {nested[0]}."
        )
    maps = {}
    for operation, stride in _trunk(model):
        level = math.log2(stride)
        if _is_activation(operation) and level % 1 == 0:
            maps[int(level)] = operation.output
    levels = tuple(levels) if isinstance(levels, Iterable) else (levels,)
    for level in levels:
        arguments.require_integer("levels", level)
    if not levels or not set(levels) <= set(maps):
        raise ValueError(
            f"`levels` must be some of {sorted(maps)} in {model.name}. "
            f"Received: levels={levels}."
        )
    outputs = {str(level): maps[level] for level in levels}
    return keras.Model(model.inputs[0], outputs, name=f"{model.name}_multi_scale")


def _trunk(model):
    """(operation, stride of its output) where all paths from input to output pass."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    order = [op for op in model.operations if not isinstance(op, layers.InputLayer)]
    position = {id(out): i for i, op in enumerate(order) for out in _list(op.output)}
    strides, last_use = [], [0] * len(order)
    for i, operation in enumerate(order):
        inputs = map(id, _list(operation.input))
        before = [position[key] for key in inputs if key in position]
        own = graph.stride(operation)
        strides.append(own * (strides[before[0]] if before else 1))
        for each in before:
            last_use[each] = i
    in_use_until = 0
    for i, operation in enumerate(order):
        if in_use_until <= i:
            yield operation, strides[i]
        in_use_until = max(in_use_until, last_use[i])


def _list(tensors) -> list:
    return keras.tree.flatten(tensors)


def _is_activation(operation) -> bool:
    if len(getattr(operation.output, "shape", ())) != 4:
        return False
    linear = (None, keras.activations.linear)
    if getattr(operation, "activation", None) not in linear:
        return True
    return isinstance(operation, ACTIVATIONS)
