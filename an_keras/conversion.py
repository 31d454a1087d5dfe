"""Puts attentive normalization into existing models without changing their outputs."""

import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from an_keras import arguments, graph, keras_internals
from an_keras.attentive_normalization import AttentiveNormalization
from an_keras.batch_normalization import BatchNormalization

KINDS = {
    layers.BatchNormalization: "batch",
    BatchNormalization: "batch",
    layers.GroupNormalization: "group",
    layers.LayerNormalization: "layer",
}
NORMS = (*KINDS, layers.RMSNormalization)
# Layers that may stand between a convolution and its norm.
BETWEEN = (
    *(getattr(layers, f"ZeroPadding{rank}D") for rank in (1, 2, 3)),
    *(getattr(layers, f"SpatialDropout{rank}D") for rank in (1, 2, 3)),
    *(layers.Dropout, layers.GaussianDropout, layers.AlphaDropout),
    *(layers.GaussianNoise, layers.Identity),
)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU)
ACTIVATIONS += (layers.PReLU, layers.ELU)


class ConversionRow(NamedTuple):
    """The outcome of the conversion for a normalization layer.

    Attributes:
        layer: Name of the layer, prefixed with the names of the models that contain it,
            joined by "/".
        kind: "batch", "group" or "layer". `None` for other norms, which are never
            converted.
        num_components: K, or `None` if the layer is not converted.
        action: "converted", "kept" or "refused".
        reason: The reason for the action, as text.
    """

    layer: str
    kind: str | None
    num_components: int | None
    action: str
    reason: str


def convert_normalization(
    model: keras.Model,
    where: str | Callable = "spatial",
    num_components: int | dict | Callable | None = None,
    noise: float = 0.1,
    report: list | None = None,
) -> keras.Model:
    """Returns a copy of a model with attentive normalization and the same outputs.

    `keras.layers.BatchNormalization`, `an_keras.BatchNormalization`,
    `GroupNormalization` and `LayerNormalization` over the channels become
    `AttentiveNormalization` layers of the same name, with the same backbone
    normalization, axis, epsilon, momentum, synchronization, regularizers, constraints,
    dtype, statistics and `trainable`. (Regularizers and constraints then apply to K
    rows.) In a converted layer

    ```
    a[n, k]  = hard_sigmoid(s[n, :] @ 0 + 0) = 1/2       no norm in the gate
    gamma[k] = 2/K * (gamma of the norm) + noise[k]      sum_k noise[k] = 0
    beta[k]  = 2/K * (beta of the norm) + noise[k]
    ```

    so that outputs stay the same in training and in inference, up to the rounding of
    the layer's dtype (float16 and bfloat16 round each weight). The noise allows the
    components to separate: equal rows would have equal gradients forever. The gate has
    no batch norm, because its logits are all 0 and have no variance.

    Args:
        model: A built functional or Sequential model, which may contain other models.
            It is not modified.
        where: Which norms to convert. Defaults to `"spatial"`.

            - `"spatial"`: The published place, the norm after a convolution (also
                depthwise or separable) with a kernel larger than 1x1, except the
                network's first convolution. Padding, dropout or identity may be in
                between. If no norm follows such convolutions, as in a DenseNet, the
                norm before them.
            - `"all"`: All norms.
            - Any other string: A regular expression to search for in layer names.
            - A function `layer -> bool`.
        num_components: The number of components K: an integer, a dictionary
            `{stride: K}` or a function `layer -> K`. `None` selects 10 up to stride 8
            and 20 above, as published.
        noise: Standard deviation of the noise relative to each number of the norm's
            gamma and beta (relative to 1 in a norm whose gamma is 0 everywhere), in
            [0, 10]. Defaults to `0.1`.
        report: A list to be filled with one `ConversionRow` for each norm, including
            those that are kept.

    Returns:
        The new model, not compiled. A model of a class with a different constructor,
        such as KerasHub's backbones, becomes a plain functional model.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the model is not a graph, if selected norms cannot be converted
            (subclasses with unknown code, layers inside custom layers, norms over other
            axes), or if `where` selects no norm. The message names the layers.

    Examples:
        >>> trained = keras.Sequential(
        ...     [
        ...         keras.Input((8, 8, 3)),
        ...         keras.layers.Conv2D(4, 3),
        ...         keras.layers.Conv2D(4, 3),
        ...         keras.layers.BatchNormalization(),
        ...     ]
        ... )
        >>> converted = convert_normalization(trained, num_components=5)
        >>> type(converted.layers[-1]).__name__
        'AttentiveNormalization'
    """
    graph.require_graph(model)
    if report is not None and not isinstance(report, list):
        raise TypeError(f"`report` must be a list. Received: report={report!r}.")
    arguments.require_number("noise", noise)
    if not 0.0 <= noise <= 10.0:
        raise ValueError(
            f"`noise` must be >= 0 and at most 10. Received: noise={noise!r:.30}."
        )
    found = graph.calls(model)
    selected, components = _selector(where, found), _components(num_components, found)
    rows, made = [], []
    for path, uses in _norms(found).items():
        row, layer = _attentive(path, uses, selected, components)
        rows.append(row)
        if layer is not None:
            made.append((uses[0].operation, layer))
    for owner, custom, layer in graph.hidden(found, NORMS):
        reason = (
            f"a norm inside a custom layer, {type(custom).__name__}, which calls it"
        )
        action = "refused" if selected(layer, ()) else "kept"
        row = ConversionRow(f"{owner}/{layer.name}", _kind(layer), None, action, reason)
        rows.append(row)
    if report is not None:
        report[:] = rows
    _require_convertible(model, where, rows)
    new_layers = {id(old): new for old, new in made}
    converted = graph.rebuild(model, lambda layer: new_layers.get(id(layer)))
    for old, new in made:
        _copy_weights(old, new, noise)
    return converted


def _norms(found):
    """Returns {path: calls} of each norm; a shared norm has one of its paths."""
    uses = {}
    for call in found:
        if isinstance(call.operation, NORMS):
            uses.setdefault(id(call.operation), []).append(call)
    return {calls[0].path: calls for calls in uses.values()}


def _kind(layer):
    kinds = (kind for norm, kind in KINDS.items() if isinstance(layer, norm))
    return next(kinds, None)


def _selector(where, found):
    """Returns a function (layer, its calls) -> bool. Hidden layers have no calls."""
    if callable(where):
        return lambda layer, uses: bool(where(layer))
    if not isinstance(where, str):
        raise TypeError(
            "`where` must be 'spatial', 'all', a regular expression or a function. "
            f"Received: where={where!r}."
        )
    if where == "all":
        return lambda layer, uses: True
    if where == "spatial":
        places = _published_places(found)
        return lambda layer, uses: not uses or any(use in places for use in uses)
    try:
        pattern = re.compile(where)
    except re.error as error:
        raise ValueError(
            f"`where` must be a regular expression: {error}. Received: where={where!r}."
        ) from error
    return lambda layer, uses: bool(pattern.search(layer.name))


def _published_places(found):
    """Returns calls of norms after, or else before, convolutions except the first."""
    behind = set()  # calls behind a convolution
    for call in found:
        if any(each.is_convolution or each in behind for each in call.before):
            behind.add(call)
    convolutions = {call for call in found if call.is_spatial and call in behind}
    norms = {call for call in found if isinstance(call.operation, NORMS)}
    after = {call for call in norms if _origin(call, _is_between) in convolutions}
    return after or norms & {_origin(call, _may_precede) for call in convolutions}


def _origin(call, passes):
    """Returns the nearest preceding call whose operation `passes` does not accept."""
    while len(call.before) == 1:
        call = call.before[0]
        if not passes(call.operation):
            return call
    return None


def _is_between(operation):
    if isinstance(operation, layers.Activation):
        return operation.activation is keras.activations.linear
    return isinstance(operation, BETWEEN)


def _may_precede(operation):
    is_function = not isinstance(operation, (layers.Layer, type(None)))
    return is_function or isinstance(operation, (*BETWEEN, *ACTIVATIONS))


def _components(num_components, found):
    """Returns a function that maps a call to its K."""
    strides = graph.strides(found)

    def components(use):
        if num_components is None:
            return 10 if strides[use] <= 8 else 20
        if isinstance(num_components, dict):
            if strides[use] not in num_components:
                raise ValueError(
                    "`num_components` must have a K for every stride. Received: "
                    f"{num_components}, and {use.path!r} at stride {strides[use]:g}."
                )
            return num_components[strides[use]]
        if callable(num_components):
            return num_components(use.operation)
        return num_components

    return components


def _attentive(path, uses, selected, components):
    """Returns the report row of a norm, and its replacement or `None`."""
    layer = uses[0].operation
    kind = _kind(layer)
    if not selected(layer, uses):
        return ConversionRow(path, kind, None, "kept", "not selected by `where`"), None

    def refuse(reason):
        return ConversionRow(path, kind, None, "refused", reason), None

    places = [use for use in uses if selected(layer, [use])]
    if len(places) < len(uses):
        return refuse(
            f"shared between {len(uses)} places, of which `where` selects {len(places)}"
        )
    if kind is None:
        return refuse(f"{type(layer).__name__} does not subtract the mean")
    if type(layer) not in KINDS:
        return refuse(f"{type(layer).__name__} is a subclass with its own code")
    if getattr(layer, "renorm", False):
        return refuse("batch renormalization")
    if kind == "layer" and (layer.rms_scaling or len(layer.axis) != 1):
        return refuse(f"does not normalize over the channels alone, axis={layer.axis}")
    if kind == "group" and keras_internals.has_masked_input(layer):
        return refuse("its input has a mask, which group normalization ignores")
    num_components = components(uses[0])
    try:
        new = _with_same_backbone(layer, kind, num_components)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path} cannot be converted: {error}") from error
    try:
        new.compute_output_shape(layer.get_build_config()["input_shape"])
    except ValueError as error:
        return refuse(str(error))
    reason = f"shared between {len(uses)} places" if len(uses) > 1 else "selected"
    return ConversionRow(path, kind, num_components, "converted", reason), new


def _with_same_backbone(layer, kind, num_components):
    specific = {
        "batch": ("momentum", "synchronized"),
        "group": ("groups",),
        "layer": (),
    }[kind]
    same = ("name", "epsilon", "trainable", "activity_regularizer", *specific)
    same += tuple(
        f"{table}_{argument}"
        for table in ("gamma", "beta")
        for argument in ("regularizer", "constraint")
    )
    return AttentiveNormalization(
        num_components,
        normalization=kind,
        axis=layer.axis[0] if kind == "layer" else layer.axis,
        gate_normalization=None,
        gate_initializer="zeros",
        dtype=layer.dtype_policy,
        **{name: getattr(layer, name) for name in same},
    )


def _require_convertible(model, where, rows):
    refused = [row for row in rows if row.action == "refused"]
    if refused:
        listed = "; ".join(f"{row.layer} ({row.reason})" for row in refused[:10])
        more = f"; and {len(refused) - 10} more" if len(refused) > 10 else ""
        raise ValueError(
            f"Some of the norms that where={where!r} selects in {model.name!r} cannot "
            "be converted. Use `where` to exclude them. "
            f"Received: {listed}{more}."
        )
    if not any(row.action == "converted" for row in rows):
        names = ", ".join(row.layer for row in rows[:5]) or "none"
        raise ValueError(
            f"`where` must select a normalization layer of {model.name!r}. "
            f"Received: where={where!r}; its norms: {names}"
            f"{', ...' if len(rows) > 5 else ''}."
        )


def _copy_weights(old, new, noise):
    """Sets rows whose mixture with weights 1/2 is the norm's gamma and beta."""
    k, channels = new.gamma.shape
    gamma = _numbers(old.gamma, np.ones(channels))
    beta = _numbers(old.beta, np.zeros(channels))
    for table, row in ((new.gamma, gamma), (new.beta, beta)):
        draws = _numbers(keras.random.normal((k, channels)))
        draws -= draws.mean(axis=0)  # and restore the spread that this loses:
        draws *= noise * (2 / k) * (k / max(k - 1, 1)) ** 0.5
        relative_to = np.abs(row) if np.any(gamma) else 1.0
        bits = 53 if table.dtype == "float64" else 24
        table.assign(_rows(2 * row, draws * relative_to, bits))
    if new.normalization == "batch":
        new.moving_mean.assign(old.moving_mean)
        new.moving_variance.assign(old.moving_variance)


def _rows(total, noise, bits):
    """Returns rows total / K + noise, (K, C), that add up to `total`, (C,), exactly.

    The sum is exact in any order, because a deep network would amplify the rounding of
    each layer. Every row is a multiple of a power of two large enough that every
    partial sum fits into `bits`, 24 in float32. `total` is a multiple of it as long as
    the noise does not change the sign of a row.
    """
    rows = total / len(noise) + noise
    largest = np.maximum(np.abs(rows).sum(axis=0), np.finfo("float32").tiny)
    grid = 2.0 ** (np.ceil(np.log2(largest)) - bits)
    rows = np.round(rows / grid)
    rows[-1] = np.round(total / grid) - rows[:-1].sum(axis=0)
    return rows * grid


def _numbers(array, default=None):
    if array is None:
        return default
    return ops.convert_to_numpy(array).astype("float64")
