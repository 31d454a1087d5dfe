"""Copies of models that all runtimes can run, or that compute in another precision."""

import keras
import numpy as np
from keras import ops

from an_keras import graph
from an_keras.keras_internals import flatten_layers


def with_plain_layers(model: keras.Model) -> keras.Model:
    """Returns a copy of a model without layers that some runtimes cannot run.

    - `Normalization`, as in EfficientNets, becomes `Rescaling`: its moments are tensors
      outside the graph, which ONNX would require as inputs.
    - `Conv2D` with one group per channel, as in ConvNeXts, becomes `DepthwiseConv2D`:
      Keras compiles grouped convolutions with XLA, and TensorFlow Serving refuses
      compiled functions on a CPU.

    A model without such layers is returned unchanged.
    """
    depthwise = {}

    def replace(layer):
        if isinstance(layer, keras.layers.Normalization):
            mean, std = (np.ravel(v) for v in (layer.mean, ops.sqrt(layer.variance)))
            scale, offset = (1 / std).tolist(), (-mean / std).tolist()
            return keras.layers.Rescaling(
                scale, offset, dtype=layer.dtype_policy, name=layer.name
            )
        if _is_depthwise(layer):
            depthwise[layer] = keras.layers.DepthwiseConv2D(
                layer.kernel_size,
                layer.strides,
                depth_multiplier=layer.filters // layer.groups,
                padding=layer.padding,
                data_format=layer.data_format,
                dilation_rate=layer.dilation_rate,
                activation=layer.activation,
                use_bias=layer.use_bias,
                dtype=layer.dtype_policy,
                name=layer.name,
            )
            return depthwise[layer]
        return None

    if not any(
        isinstance(layer, keras.layers.Normalization) or _is_depthwise(layer)
        for layer in flatten_layers(model)
    ):
        return model
    copy = graph.rebuild(model, replace)
    for old, new in depthwise.items():
        new.kernel.assign(ops.reshape(old.kernel, new.kernel.shape))
        if old.use_bias:
            new.bias.assign(old.bias)
    return copy


def _is_depthwise(layer):
    """Whether a layer is a depthwise convolution written as a grouped one."""
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.groups > 1
        and layer.kernel.shape[2] == 1
        and len(set(layer.strides)) == 1
    )


def with_precision(model: keras.Model, precision: str) -> keras.Model:
    """Returns a copy with equal weights that computes in another precision."""
    made = {}

    def replace(layer):
        if not isinstance(layer, keras.Layer):
            return None
        config = {**layer.get_config(), "dtype": precision}
        made[layer] = type(layer).from_config(config)
        return made[layer]

    copy = graph.rebuild(model, replace)
    for old, new in made.items():
        graph.copy_values(old, new)
    return copy
