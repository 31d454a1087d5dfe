"""Multiply-adds of a network.

Published figures ("GFLOPs") count the multiply-adds of convolutions and dense layers
for one image, biases excluded. The work of norms is counted apart, as in inference:

* batch normalization multiplies and adds once for each number; layer and group
  normalization compute two sums, too, RMS and unit normalization one;
* AN computes mean and variance of each channel, with a gate of kernel (C, K) and tables
  (K, C) for each image, and multiplies and adds once for each number.
"""

import dataclasses
import math

import keras
from keras import layers

from an_keras import AttentiveNormalization, graph, keras_internals

CONVOLUTIONS = (
    *(getattr(layers, f"Conv{rank}D") for rank in (1, 2, 3)),
    *(getattr(layers, f"DepthwiseConv{rank}D") for rank in (1, 2)),
)
SEPARABLE = tuple(getattr(layers, f"SeparableConv{rank}D") for rank in (1, 2))
SUMS = {  # that a norm computes for each of its inputs
    layers.LayerNormalization: 2,
    layers.GroupNormalization: 2,
    layers.RMSNormalization: 1,
    layers.UnitNormalization: 1,
}
NORMS = (
    AttentiveNormalization,
    layers.BatchNormalization,
    layers.Normalization,
    *SUMS,
)


@dataclasses.dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds of a network for one image.

    Attributes:
        network: Those of convolutions and dense layers, the published convention.
        norms: Those of all norms, AN included.
        attention: What AN adds to plain norms: statistics, gates and mixtures.
    """

    network: int = 0
    norms: int = 0
    attention: int = 0

    def __add__(self, other):
        sums = map(sum, zip(*map(dataclasses.astuple, (self, other)), strict=True))
        return MultiplyAdds(*sums)


def multiply_adds(model: keras.Model) -> MultiplyAdds:
    """Counts the multiply-adds of a functional or Sequential model, for one sample.

    Activations, pooling, additions and other layers without multiplications by weights
    count nothing.

    Raises:
        ValueError: If the model is no graph, a size is not static, or a layer with a
            kernel is of a kind that cannot be counted.
    """
    graph.require_graph(model)
    total = MultiplyAdds()
    for call in keras_internals.nodes(keras_internals.functional(model)):
        total += multiply_adds(call[0]) if graph.is_graph(call[0]) else _layer(*call)
    return total


def _layer(operation, inputs, outputs):
    if not isinstance(operation, NORMS):
        return MultiplyAdds(network=_weighted(operation, inputs, outputs))
    size = _size(operation, outputs)
    attention = 0
    if isinstance(operation, AttentiveNormalization):
        attention = 2 * size + _gate_and_tables(operation)
        sums = 0 if operation.normalization == "batch" else 2
    else:
        sums = next((SUMS[kind] for kind in SUMS if isinstance(operation, kind)), 0)
    return MultiplyAdds(0, size * (1 + sums) + attention, attention)


def _weighted(operation, inputs, outputs):
    """Returns the multiply-adds of a convolution or a dense layer, 0 for others."""
    if isinstance(operation, graph.TRANSPOSED):
        return _positions(operation, inputs) * math.prod(operation.kernel.shape)
    if isinstance(operation, SEPARABLE):
        kernels = operation.depthwise_kernel, operation.pointwise_kernel
        return _positions(operation, outputs) * sum(math.prod(k.shape) for k in kernels)
    if isinstance(operation, CONVOLUTIONS):
        return _positions(operation, outputs) * math.prod(operation.kernel.shape)
    if isinstance(operation, layers.Dense):
        units = operation.kernel.shape[-1]
        return _size(operation, outputs) // units * math.prod(operation.kernel.shape)
    if isinstance(operation, layers.PReLU):
        return 0
    weights = getattr(operation, "weights", ())
    if any(len(weight.shape) > 1 for weight in weights):
        raise ValueError(
            "Expected convolutions, dense layers, norms and layers without a kernel. "
            f"Received: {operation.name!r} of class {type(operation).__name__}."
        )
    return 0


def _gate_and_tables(norm):
    channels, components = norm.gamma.shape[1], norm.num_components
    hidden = norm.gate_hidden_units
    gate = hidden * (channels + components) if hidden else channels * components
    return gate + 2 * components * channels


def _size(operation, tensors):
    """Returns the numbers of the first tensor for one sample."""
    size = tensors[0].shape[1:]
    if None in size:
        raise ValueError(
            f"Expected static sizes. Received: {operation.name!r} with {size}; build "
            "the model for one `input_shape`."
        )
    return math.prod(size)


def _positions(operation, tensors):
    axis = -1 if operation.data_format == "channels_last" else 1
    return _size(operation, tensors) // tensors[0].shape[axis]
