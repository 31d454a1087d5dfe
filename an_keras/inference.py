"""Collects attention, folds models for inference, freezes them for fine-tuning."""

import collections
import contextvars
import itertools

import keras
from keras import ops

from an_keras import conversion, graph
from an_keras.attentive_normalization import OBSERVERS, AttentiveNormalization
from an_keras.keras_internals import flatten_layers

NORMS = (AttentiveNormalization, *conversion.NORMS)
_collecting = contextvars.ContextVar("_collecting", default=None)  # per thread


def attentive_layers(model: keras.Layer) -> list[AttentiveNormalization]:
    """Returns every `AttentiveNormalization` at any depth, in order of creation."""
    return [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, AttentiveNormalization)
    ]


def collect_attention(model: keras.Layer, inputs) -> dict:
    """Returns the attention weights of each layer for each sample, in inference.

    Args:
        model: Any built model or layer that contains `AttentiveNormalization`:
            functional, Sequential, subclassed or nested.
        inputs: The inputs to call the model with, N samples.

    Returns:
        A dictionary {path of the layer: weights (N, K)}, in the order of the calls. A
        layer that the model calls several times has entries `path`, `path:1`, `path:2`,
        ... Layers with the same path, as in an ensemble, are listed by their name,
        prefixed with the names of the models that contain them. Layers that are not
        called in inference have no entry. If a layer is also called in a compiled
        function, only its other calls have entries. On TensorFlow, `keras.ops.map`
        makes one extra call. The model is called as it is: if its own code calls a
        layer with `training=True`, the weights are those of training, and moving
        statistics are updated.

    Raises:
        ValueError: If the model has no `AttentiveNormalization`, or if one is called
            where it cannot be observed: in a `tf.function` or another compiled
            function, in the loop of an RNN, or in another thread. The message names it.
    """
    layers = attentive_layers(_require_layer(model))
    if not layers:
        raise ValueError(
            f"The model has no AttentiveNormalization. Received: {model.name!r}."
        )
    if any(map(keras.utils.is_keras_tensor, keras.tree.flatten(inputs))):
        raise ValueError(
            "`inputs` must be arrays, so that attention can be computed. Received a "
            f"symbolic tensor: {inputs!r}."
        )
    _require_no_loop(model)
    calls, elsewhere = _observed(lambda: model(inputs, training=False))
    known = {id(layer) for layer in layers}
    calls = [call for call in calls if id(call[0]) in known]
    hidden = _unobserved(model, inputs, layers, calls, elsewhere)
    if hidden or not calls:
        names = ", ".join(layer.path for layer in hidden) or "no call at all"
        raise ValueError(
            "Every AttentiveNormalization must be called by Python code in this thread "
            "to be observed, not inside a compiled function (tf.function, jax.jit). "
            "Call layer.attention(x) to compute the attention there. "
            f"Received: {names}."
        )
    paths, collected = _paths(model, [layer for layer, _ in calls]), {}
    for layer, attention in calls:
        path, uses = paths[id(layer)], 0
        while path in collected:
            uses += 1
            path = f"{paths[id(layer)]}:{uses}"
        collected[path] = attention
    return collected


def _observed(function):
    """Returns calls of layers in a function, and ids of layers other threads call."""
    calls, elsewhere, this = [], set(), object()

    def observe(layer, attention):
        if _collecting.get() is this:
            calls.append((layer, attention))
        else:
            elsewhere.add(id(layer))

    token = _collecting.set(this)
    OBSERVERS.append(observe)
    try:
        function()
    finally:
        OBSERVERS.remove(observe)
        _collecting.reset(token)
    return calls, elsewhere


def _require_no_loop(model):
    """Raises a ValueError if an RNN with attention is not unrolled.

    It would call its cell in a compiled loop, or once more than there are steps.
    """
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            for each in attentive_layers(layer):
                raise ValueError(
                    "An AttentiveNormalization in the cell of an RNN can be observed "
                    "only if the RNN is created with unroll=True. Received: "
                    f"{each.path} in {layer.name}."
                )


def _unobserved(model, inputs, layers, calls, elsewhere):
    """Returns called layers that are missing from `calls` or have no values there."""
    seen = {id(layer) for layer, _ in calls}
    missing = [layer for layer in layers if id(layer) not in seen and layer.built]
    hidden = [layer for layer in missing if id(layer) in elsewhere]
    missing = [layer for layer in missing if id(layer) not in elsewhere]
    if missing:
        are_called = _are_called(lambda: model(inputs, training=False), missing)
        hidden += itertools.compress(missing, are_called)
    if all(map(_has_values, keras.tree.flatten(inputs))):
        hidden += [layer for layer, values in calls if not _has_values(values)]
    return hidden


def _are_called(function, layers):
    """Returns for each layer whether a function calls it, even if compiled before."""
    if keras.backend.backend() == "tensorflow":
        from an_keras import kernels_tf

        return kernels_tf.are_read(function, [layer.gamma for layer in layers])
    if keras.backend.backend() != "jax":
        return [False for _ in layers]
    import jax

    with jax.disable_jit():
        calls, _ = _observed(function)
    called = {id(layer) for layer, _ in calls}
    return [id(layer) in called for layer in layers]


def _has_values(array):
    """Returns whether an array has values, unlike tensors of a traced function.

    For such tensors, TensorFlow raises NotImplementedError, JAX TypeError and PyTorch
    RuntimeError.
    """
    try:
        ops.convert_to_numpy(array)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def _paths(model, layers):
    """Returns {id of layer: path}, with the names of outer models for equal paths."""
    layers = list({id(layer): layer for layer in layers}.values())
    count = collections.Counter(layer.path for layer in layers)
    places = {}

    def visit(owner, prefix):
        for each in flatten_layers(owner, include_self=False, recursive=False):
            if id(each) not in places:
                places[id(each)] = f"{prefix}{each.name}"
                visit(each, f"{prefix}{each.name}/")

    visit(model, "")
    paths = {
        id(layer): layer.path if count[layer.path] == 1 else places[id(layer)]
        for layer in layers
    }
    same = [path for path, n in collections.Counter(paths.values()).items() if n > 1]
    if same:
        raise ValueError(
            "Every AttentiveNormalization must have a unique name, or be in a model "
            f"with a unique name. Received: several layers named {same[0]}."
        )
    return paths


def fold_for_inference(model: keras.Model) -> keras.Model:
    """Returns a copy of a model without the statistics of attentive normalization.

    For a batch backbone with moving mean m and standard deviation d = sqrt(v + epsilon)

    ```
    gamma'[k, c] = gamma[k, c] / d[c]
    beta'[k, c]  = beta[k, c] - gamma[k, c] * m[c] / d[c]        normalization=None
    ```

    and a batch norm in the gate is folded into its kernel and a bias in the same way.
    Other backbones, which standardize each sample, are kept. Outputs in inference stay
    the same up to rounding. Other layers, including `BatchNormalization`, are not
    changed, because converters and runtimes fold it into convolutions. If a mean is
    large relative to its standard deviation, scale and offset cancel each other and
    digits are lost: 2e-4 at a ratio of 1000.

    A layer that the graph calls with `training=True`, directly or through a model that
    contains it, uses the statistics of the batch in `model(x)` and in exports. It is
    not folded.

    Args:
        model: A built functional or Sequential model. It is not modified.

    Returns:
        A normal, serializable model. It can be trained, but a layer whose backbone was
        a batch norm no longer standardizes its inputs.

    Raises:
        ValueError: If the model is not a graph, has no `AttentiveNormalization`, has
            one inside a custom layer or one of a subclass, or has weights whose folded
            values are too large for float16. The message names them.
    """
    graph.require_graph(model)
    if not attentive_layers(model):
        raise ValueError(
            f"The model has no AttentiveNormalization. Received: {model.name!r}."
        )
    found = graph.calls(model)
    inside = [
        f"{owner}/{layer.name}"
        for owner, _, layer in graph.hidden(found, AttentiveNormalization)
    ]
    inside += [
        call.path
        for call in found
        if isinstance(call.operation, AttentiveNormalization)
        and type(call.operation) is not AttentiveNormalization
    ]
    if inside:
        raise ValueError(
            "Every AttentiveNormalization must be a layer of the graph itself and not "
            f"a subclass. Received: {', '.join(inside)}."
        )
    in_training = {
        id(call.operation) for call in found if call.training not in (None, False)
    }
    folded = {}

    def replace(layer):
        if isinstance(layer, AttentiveNormalization) and id(layer) not in in_training:
            folded[layer] = _without_statistics(layer)
            return folded[layer]
        return None

    copy = graph.rebuild(model, replace)
    for old, new in folded.items():
        _fold(old, new)
    return copy


def _without_statistics(layer):
    config = layer.get_config()
    gate = layer.gate.normalization
    config["gate_normalization"] = None if gate == "batch" else gate
    if layer.normalization == "batch":
        config["normalization"] = None
    return AttentiveNormalization.from_config(config)


def _fold(old, new):
    gamma, beta = _wide(old.gamma), _wide(old.beta)
    if old.normalization == "batch":
        gamma = gamma * ops.rsqrt(_wide(old.moving_variance) + old.epsilon)
        beta = beta - gamma * _wide(old.moving_mean)
    _assign(old, new.gamma, gamma)
    _assign(old, new.beta, beta)
    for prefix in ("hidden_", "") if old.gate_hidden_units else ("",):
        _fold_projection(prefix, old.gate, new.gate)


def _assign(layer, variable, value):
    stored = ops.cast(value, variable.dtype)
    if not ops.all(ops.isfinite(stored) | ~ops.isfinite(value)):
        raise ValueError(
            "The folded weights of a layer must fit into its dtype. Received: "
            f"{layer.path} in {variable.dtype}."
        )
    variable.assign(stored)


def _wide(variable):
    """Casts a variable to float32 or wider."""
    return ops.cast(variable, keras.backend.result_type(variable.dtype, "float32"))


def _fold_projection(prefix, old, new):
    names = [
        name
        for name in (
            "kernel",
            "bias",
            "gamma",
            "beta",
            "moving_mean",
            "moving_variance",
        )
        if hasattr(old, prefix + name)
    ]
    weights = {name: _wide(getattr(old, prefix + name)) for name in names}
    if old.normalization == "batch":
        scale = weights["gamma"] * ops.rsqrt(weights["moving_variance"] + old.epsilon)
        bias = weights["beta"] - weights["moving_mean"] * scale
        weights = {"kernel": weights["kernel"] * scale, "bias": bias}
    for name, value in weights.items():
        _assign(old, getattr(new, prefix + name), value)


def freeze_normalization(model: keras.Layer) -> None:
    """Freezes the statistics and tables of every norm of a model, for tiny batches.

    Sets `trainable=False` on every batch, group, layer, RMS and attentive normalization
    at any depth, so that they work as in inference even during training. Compile the
    model again afterwards.

    Raises:
        ValueError: If the model has no norm.
    """
    for layer in _norms(model):
        layer.trainable = False


def freeze_all_but_normalization(model: keras.Layer) -> None:
    """Freezes everything but the norms of a model, for cheap fine-tuning.

    The tables, gates and statistics of the norms remain trainable. With attentive
    normalization, these are 1 % of the weights of a ResNet-50 and 6 to 12 % of a
    DenseNet, MobileNet or EfficientNet. Make a new head trainable separately:
    `model.get_layer("predictions").trainable = True`. Compile the model again
    afterwards.

    Raises:
        ValueError: If the model has no norm.
    """
    _norms(model)
    _freeze_others(model)


def _require_layer(model):
    if not isinstance(model, keras.Layer):
        raise TypeError(f"`model` must be a Keras model. Received: {model!r}.")
    return model


def _norms(model):
    flat = flatten_layers(_require_layer(model))
    norms = [layer for layer in flat if isinstance(layer, NORMS)]
    if not norms:
        raise ValueError(
            f"The model has no normalization layer. Received: {model.name!r}."
        )
    return norms


def _freeze_others(layer):
    """Freezes all weights of a layer and its sublayers except those of norms.

    `trainable=False` on a layer would also freeze the norms inside it.
    """
    inside = flatten_layers(layer, include_self=False)
    if isinstance(layer, NORMS):
        layer.trainable = True
    elif not any(isinstance(each, NORMS) for each in inside):
        layer.trainable = False
    else:
        layer.trainable = True
        own = {id(v) for each in inside for v in each.variables}
        for variable in layer.trainable_variables:
            if id(variable) not in own:
                variable.trainable = False
        for each in flatten_layers(layer, include_self=False, recursive=False):
            _freeze_others(each)
