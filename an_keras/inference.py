"""Looking inside a model: the attention of all its layers for given images."""

import keras

from an_keras.attentive_normalization import AttentiveNormalization


def attentive_layers(model: keras.Layer) -> list[AttentiveNormalization]:
    """Every `AttentiveNormalization` in a model, however deep, in order of creation."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, AttentiveNormalization)
    ]


def collect_attention(model: keras.Layer, inputs) -> dict:
    """What weights each layer gives its K components for each sample, in inference.

    Args:
        model: any built model or layer with `AttentiveNormalization` in it: functional,
            Sequential, subclassed, nested.
        inputs: what the model is called with, N samples.

    Returns:
        {path of the layer: (N, K)}, in the order of the layers' calls. A layer that the
        model uses several times has entries `path`, `path:1`, `path:2`, ...

    Raises:
        ValueError: the model has no `AttentiveNormalization`.
    """
    layers = attentive_layers(model)
    if not layers:
        raise ValueError(
            f"The model has no AttentiveNormalization. Received: {model.name!r}."
        )
    collected = {}

    def keep(layer, attention):
        path, uses = layer.path, 0
        while path in collected:
            uses += 1
            path = f"{layer.path}:{uses}"
        collected[path] = attention

    for layer in layers:
        layer.observer = keep
    try:
        model(inputs, training=False)
    finally:
        for layer in layers:
            layer.observer = None
    return collected
