"""Models in use: their attention, folded for inference, frozen for fine-tuning."""

import collections
import contextvars
import itertools

import keras
from keras import ops

from an_keras import conversion, graph
from an_keras.attentive_normalization import OBSERVERS, AttentiveNormalization

NORMS = (AttentiveNormalization, *conversion.NORMS)
_collecting = contextvars.ContextVar("_collecting", default=None)  # of this thread


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
        model uses several times has entries `path`, `path:1`, `path:2`, ...; layers of
        the same path, as in an ensemble, have the names of the models around them
        before their own instead. Layers that are not called in inference have none. Of
        a layer that is called in a compiled function, too, the other calls have
        entries; `keras.ops.map` calls once more than there are rows on TensorFlow. The
        model is called as it is: where its own code calls a layer with
        `training=True`, the weights are those of training, and statistics move.

    Raises:
        ValueError: the model has no `AttentiveNormalization`; or one is called where it
            cannot be observed: in a `tf.function` or another compiled function, in
            the loop of an RNN, or in another thread. The message names it.
    """
    layers = attentive_layers(_require_layer(model))
    if not layers:
        raise ValueError(
            f"The model has no AttentiveNormalization. Received: {model.name!r}."
        )
    if any(map(keras.utils.is_keras_tensor, keras.tree.flatten(inputs))):
        raise ValueError(
            "`inputs` must be arrays, of which attention can be computed. Received a "
            f"symbolic tensor: {inputs!r}."
        )
    _require_no_loop(model)
    calls, elsewhere = _observed(lambda: model(inputs, training=False))
    known = {id(layer) for layer in layers}
    calls = [call for call in calls if id(call[0]) in known]
    hidden = _unobserved(model, inputs, layers, calls, elsewhere)
    if hidden or not calls:
        names = ", ".join(layer.path for layer in hidden) or "no call of any"
        raise ValueError(
            "Every AttentiveNormalization must be called by Python code of this thread "
            "to be observed, not inside of a compiled function (tf.function, jax.jit). "
            f"layer.attention(x) tells the attention there. Received: {names}."
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
    """Calls of layers in a function, and ids of layers that other threads call then."""
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
    """RNNs call their cell in a compiled loop, or once more than there are steps."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN) and not layer.unroll:
            for each in attentive_layers(layer):
                raise ValueError(
                    "An AttentiveNormalization in the cell of an RNN can be observed "
                    "only where the RNN is made with unroll=True. Received: "
                    f"{each.path} in {layer.name}."
                )


def _unobserved(model, inputs, layers, calls, elsewhere):
    """Layers that were called, but are not in `calls` or without values there."""
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
    """Whether a function calls them, also where it was compiled before."""
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
    """Whether it is no tensor of a function that is traced.

    TensorFlow raises NotImplementedError there, JAX a TypeError, PyTorch RuntimeError.
    """
    try:
        ops.convert_to_numpy(array)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def _paths(model, layers):
    """{id of the layer: its path}, with the models around it where others have it."""
    layers = list({id(layer): layer for layer in layers}.values())
    count = collections.Counter(layer.path for layer in layers)
    places = {}

    def visit(owner, prefix):
        for each in owner._flatten_layers(include_self=False, recursive=False):
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
            "Every AttentiveNormalization must have a name of its own, or be in a "
            f"model that has. Received: several of the name {same[0]}."
        )
    return paths


def fold_for_inference(model: keras.Model) -> keras.Model:
    """A copy of a model whose attentive normalization has no statistics to look up.

    With a batch backbone, moving mean m and standard deviation d = sqrt(v + epsilon)

    ```
    gamma'[k, c] = gamma[k, c] / d[c]
    beta'[k, c]  = beta[k, c] - gamma[k, c] * m[c] / d[c]        normalization=None
    ```

    and a batch norm of the gate goes into its kernel and a bias in the same way; other
    backbones, which standardize each sample, keep theirs. Outputs in inference stay as
    they were within rounding. Other layers, `BatchNormalization` among them, stay as
    they are: converters and runtimes fold it into convolutions. Where a mean is large
    against its standard deviation, scale and offset cancel each other and digits are
    lost: 2e-4 at a ratio of 1000.

    A layer that the graph calls with `training=True`, itself or with a model around it,
    uses the statistics of the batch in `model(x)` and in exports: it stays as it is.

    Args:
        model: a built functional or Sequential model; it stays as it is.

    Returns:
        A normal, serializable model. It can be trained, but nothing standardizes any
        more where the backbone was a batch norm.

    Raises:
        ValueError: the model is not a graph, has no `AttentiveNormalization`, or has
            some inside a custom layer or of a class of their own, or weights whose
            folded values are too large for float16. The message names them.
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
            "Every AttentiveNormalization must be a layer of the graph itself and no "
            f"subclass. Received: {', '.join(inside)}."
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
            "The folded weights of a layer must fit into its type. Received: "
            f"{layer.path} in {variable.dtype}."
        )
    variable.assign(stored)


def _wide(variable):
    """In float32 or wider."""
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
    """Fixes statistics and tables of every norm of a model, for tiny batches.

    Sets `trainable=False` on every batch, group, layer, RMS and attentive
    normalization, however deep: they work as in inference, in training too. Compile the
    model again afterwards.

    Raises:
        ValueError: the model has no norm.
    """
    for layer in _norms(model):
        layer.trainable = False


def freeze_all_but_normalization(model: keras.Layer) -> None:
    """Leaves only the norms of a model trainable, for cheap fine-tuning.

    The tables, gates and statistics of its norms go on learning: with attentive
    normalization 1 % of the weights of a ResNet-50, 6 to 12 % of a DenseNet, MobileNet
    or EfficientNet. A new head has to be told apart:
    `model.get_layer("predictions").trainable = True`. Compile the model again
    afterwards.

    Raises:
        ValueError: the model has no norm.
    """
    _norms(model)
    _freeze_others(model)


def _require_layer(model):
    if not isinstance(model, keras.Layer):
        raise TypeError(f"`model` must be a Keras model. Received: {model!r}.")
    return model


def _norms(model):
    flat = _require_layer(model)._flatten_layers()
    norms = [layer for layer in flat if isinstance(layer, NORMS)]
    if not norms:
        raise ValueError(
            f"The model has no normalization layer. Received: {model.name!r}."
        )
    return norms


def _freeze_others(layer):
    """`trainable=False` of a layer hides what is inside, so it has to be more exact."""
    inside = list(layer._flatten_layers(include_self=False))
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
        for each in layer._flatten_layers(include_self=False, recursive=False):
            _freeze_others(each)
