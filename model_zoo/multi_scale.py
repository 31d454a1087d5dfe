"""Feature maps of several sizes from one network, for detection and segmentation."""

import collections
import math
import re
from collections.abc import Iterable

import keras
from keras import layers

from an_keras import arguments, graph

ACTIVATIONS = (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
# AOGNet's transitions belong to the stage that follows, unlike those of DenseNet.
_OF_NEXT_STAGE = re.compile(r"stage\d_transition_relu")


def multi_scale(
    model: keras.Model, levels: tuple[int, ...] = (2, 3, 4, 5)
) -> keras.Model:
    """Returns the model with feature maps at strides 2**level as outputs.

    Each map is the last activation at its stride that all paths of the network pass
    through: the end of a stage of a ResNet or an AOGNet, the activation before the
    pooling of a DenseNet's transition, the expansion before the strided convolution of
    a MobileNetV2.

    Strides are read from the layers (`strides`, `UpSampling2D.size`). Other changes of
    size, such as `Resizing`, are not followed. An activation layer that is called
    several times is never a map.

    Args:
        model: A functional model with one image input, with or without its head.
        levels: Levels of the maps. Level 2 has a quarter of the image's height and
            width, level 5 a 32nd.

    Returns:
        A model of the same layers: images -> `{"2": (N, H/4, W/4, C), ...}`, each size
        rounded as in the network.

    Raises:
        TypeError: If the levels are not integers.
        ValueError: If the model has no map at some level, has several inputs, or
            contains other models.
    """
    if not getattr(model, "built", False) or len(getattr(model, "inputs", ())) != 1:
        raise ValueError(
            f"`model` must be a functional model with one input. Received: {model}."
        )
    nested = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if nested:
        raise ValueError(
            f"`model` must be a single graph of layers. Received: {model.name}, which "
            f"contains the model {nested[0]}."
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
            f"`levels` must be among {sorted(maps)} for {model.name}. "
            f"Received: levels={levels}."
        )
    outputs = {str(level): maps[level] for level in levels}
    return keras.Model(model.inputs[0], outputs, name=f"{model.name}_multi_scale")


def _trunk(model):
    """Yields (operation, stride of its output) for those that all paths pass once."""
    calls = graph.calls(model)
    uses = collections.Counter(call.operation for call in calls)
    strides = graph.strides(calls)
    last_use = {each: i for i, call in enumerate(calls) for each in call.before}
    in_use_until = 0
    for i, call in enumerate(calls):
        if in_use_until <= i and uses[call.operation] == 1:
            yield call.operation, strides[call]
        in_use_until = max(in_use_until, last_use.get(call, 0))


def _is_activation(operation) -> bool:
    if len(getattr(operation.output, "shape", ())) != 4:
        return False
    if _OF_NEXT_STAGE.fullmatch(operation.name):
        return False
    linear = (None, keras.activations.linear)
    if getattr(operation, "activation", None) not in linear:
        return True
    return isinstance(operation, ACTIVATIONS)
