"""Functional and Sequential models as graphs: calls of their layers, and copies."""

import contextlib
import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator

import keras

from an_keras import keras_internals
from an_keras.keras_internals import flatten_layers


@dataclasses.dataclass(eq=False)
class Call:
    """One call of an operation in a model or in a model that is nested in it.

    Attributes:
        operation: The layer or other operation. `None` for an input of the model.
        path: Names of the nested models and of the operation, joined by "/".
        before: The calls that produce its inputs.
        training: The `training` argument that it receives if the model is called
            without one, as in `model(x)` and in exports. `None` if it receives none.
    """

    operation: keras.Operation | None = None
    path: str = ""
    before: list["Call"] = dataclasses.field(default_factory=list)
    training: object = None

    @property
    def is_convolution(self) -> bool:
        return hasattr(self.operation, "kernel_size")

    @property
    def is_spatial(self) -> bool:
        """Whether the operation is a convolution with a kernel larger than 1x1."""
        return self.is_convolution and max(_tuple(self.operation.kernel_size)) > 1


def is_graph(model) -> bool:
    """Returns whether a model is a built functional or Sequential one.

    A custom class is accepted if it has no `call` of its own and only builds the graph,
    as KerasHub's backbones do.
    """
    own = (c for c in type(model).__mro__ if not c.__module__.startswith("keras."))
    return (
        isinstance(model, (keras.Sequential, keras.Function))
        and model.built
        and not any("call" in vars(c) for c in own)
    )


def require_graph(model) -> None:
    """Raises a ValueError that describes the model, unless it is a graph."""
    if is_graph(model):
        return
    if isinstance(model, keras.Sequential) and not model.built:
        what = "a Sequential model that is not built; add a keras.Input first"
    else:
        what = (
            f"{model.name!r} of class {type(model).__name__}, whose layers are called "
            "by its own Python code"
            if isinstance(model, keras.Model)
            else repr(model)
        )
    raise ValueError(
        "`model` must be a built functional or Sequential model (the layers of a "
        f"subclassed model cannot be replaced). Received: {what}."
    )


def calls(model: keras.Model) -> list[Call]:
    """Returns all calls of operations, in the order of computation."""
    found = []
    latest = None  # Keras passes `training` of one layer on to the next

    def run(model, sources, prefix, training):
        graph = keras_internals.functional(model)

        def visit(operation, *args, **kwargs):
            nonlocal latest
            path = f"{prefix}{operation.name}"
            inputs = args, {**kwargs, "mask": None}
            before = [
                each for each in keras.tree.flatten(inputs) if isinstance(each, Call)
            ]
            if isinstance(operation, keras.Layer):
                if training is not None:  # the model's own value has priority
                    latest = training
                elif "training" in kwargs:
                    latest = kwargs["training"]
                elif latest is None:
                    parameters = inspect.signature(operation.call).parameters
                    latest = getattr(parameters.get("training"), "default", None)
            if is_graph(operation):
                return run(operation, before, f"{path}/", latest)
            found.append(Call(operation, path, before, latest))
            return [found[-1]] * len(keras.tree.flatten(operation.output))

        return keras_internals.run_graph(graph, sources, call_fn=visit)

    run(model, [Call() for _ in model.inputs], "", None)
    return found


def strides(found: list[Call]) -> dict[Call, float]:
    """Returns the stride of each call's output relative to the inputs of the model.

    It is computed from the `strides` of convolutions and pooling layers and the `size`
    of upsampling layers.
    """
    result = {}
    for call in found:
        before = max((result.get(each, 1) for each in call.before), default=1)
        result[call] = before * stride(call.operation)
    return result


UPSAMPLING = tuple(getattr(keras.layers, f"UpSampling{rank}D") for rank in (1, 2, 3))
TRANSPOSED = tuple(getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3))


def stride(operation) -> float:
    """Returns the stride of a layer: below 1 if the output is larger than the input."""
    if isinstance(operation, UPSAMPLING):
        return 1 / max(_tuple(operation.size))
    longest = max(_tuple(getattr(operation, "strides", 1)))
    return 1 / longest if isinstance(operation, TRANSPOSED) else longest


def _tuple(value):
    return value if isinstance(value, (tuple, list)) else (value,)


def hidden(found: list[Call], types) -> Iterator[tuple]:
    """Yields (path of the outer layer, outer layer, hidden layer) for each of `types`.

    A hidden layer is called by another layer in its own code and is not part of the
    graph.
    """
    owners = {id(call.operation): call for call in found}.values()
    for call in owners:
        if isinstance(call.operation, types):
            continue
        if isinstance(call.operation, keras.Layer):
            for each in flatten_layers(call.operation, include_self=False):
                if isinstance(each, types):
                    yield call.path, call.operation, each


def rebuild(model: keras.Model, replace: Callable) -> keras.Model:
    """Returns a copy with its own weights, in which some layers are replaced.

    Args:
        model: A functional or Sequential model.
        replace: Function of a layer or operation. Returns its replacement, of the same
            name, or `None` to copy the layer with its weights.

    Returns:
        The copy, not compiled, with the original `trainable` of every layer and weight.

    Raises:
        ValueError: If a layer cannot be recreated from its config, or if its copy has
            different weights or shares them with fewer layers.
    """
    replaced, inputs = {}, None

    def clone(layer):
        other = replace(layer)
        if other is None:
            return _made_again(layer)
        replaced[id(layer)] = other
        return other

    if not isinstance(model, keras.Sequential):
        inputs = keras.tree.map_structure(_same_input, model.input)
    with _not_compiled(model):
        copy = keras.models.clone_model(
            model, inputs, clone_function=clone, recursive=True
        )
    copied = []
    for old, new in _pairs(model, copy):
        if new.trainable != old.trainable:
            new.trainable = old.trainable
        if id(old) in replaced:
            _freeze_as(old, new)
        elif not is_graph(old):
            copied += _copy_state(old, new)
    if len({id(old) for old, _ in copied}) != len({id(new) for _, new in copied}):
        raise ValueError(
            f"Layers of {model.name!r} share individual weights. Their configs do not "
            "describe this, so a copy would have more weights. Expected layers with "
            "their own weights, or the same layer in several places."
        )
    return copy


def rebuild_on(model: keras.Model, input_tensor) -> keras.Model:
    """Returns a copy, with its weights, applied to a tensor.

    Other layers may have computed the tensor. They become part of the result without
    being copied.
    """
    made = {}

    def clone(layer):
        if id(layer) not in made:
            new = (
                rebuild(layer, lambda each: None)
                if is_graph(layer)
                else _made_again(layer)
            )
            made[id(layer)] = layer, new
        return made[id(layer)][1]

    outputs = keras_internals.run_graph(model, [input_tensor], operation_fn=clone)
    for old, new in made.values():
        if isinstance(old, keras.Layer) and not is_graph(old):
            _copy_state(old, new)
    sources = keras.utils.get_source_inputs(input_tensor)
    sources = sources[0] if len(sources) == 1 else sources
    return keras.Model(sources, outputs, name=model.name)


def _made_again(layer):
    try:
        return layer.__class__.from_config(layer.get_config())
    except Exception as error:  # user code may raise anything
        raise ValueError(
            f"Layer {layer.name!r} of class {type(layer).__name__} must be a layer "
            f"that can be recreated from its config. Received: {error}"
        ) from error


def _freeze_as(old, new):
    """Freezes the weights of a replacement that have the name of a frozen weight."""
    trainable = {v.path.removeprefix(old.path): v.trainable for v in old.weights}
    for variable in new.weights:
        name = variable.path.removeprefix(new.path)
        if variable.trainable and not trainable.get(name, True):
            variable.trainable = False


def _same_input(tensor):
    layer = keras_internals.operation_of(tensor)
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=tensor.name,
        optional=layer.optional,
    )


@contextlib.contextmanager
def _not_compiled(model):
    """Keeps Keras from compiling the copy, which fails for unregistered losses."""
    compiled = [
        each for each in flatten_layers(model) if getattr(each, "compiled", False)
    ]
    for each in compiled:
        each.compiled = False
    try:
        yield
    finally:
        for each in compiled:
            each.compiled = True


def _pairs(old, new):
    """Yields pairs of layers and nested models, a model before its contents."""
    yield old, new
    if is_graph(old):
        for pair in zip(old.layers, new.layers, strict=True):
            yield from _pairs(*pair)


def copy_values(old, new) -> None:
    """Copies the values of all variables of a layer, and state derived from them."""
    for source, target in zip(old.variables, new.variables, strict=True):
        target.assign(source)
    for source, target in zip(flatten_layers(old), flatten_layers(new), strict=True):
        if isinstance(target, keras.layers.Normalization):
            target.finalize_state()
        if hasattr(source, "save_assets"):  # vocabularies
            with tempfile.TemporaryDirectory() as directory:
                source.save_assets(directory)
                target.load_assets(directory)


def _copy_state(old, new):
    """Copies values and `trainable`. Returns the pairs of variables."""
    shapes = [[tuple(each.shape) for each in layer.variables] for layer in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Layer {old.name!r} of class {type(old).__name__} must have the same "
            f"weight shapes when it is recreated from its config, {shapes[0]}. "
            f"Received: {shapes[1]}."
        )
    copy_values(old, new)
    layers = zip(flatten_layers(old), flatten_layers(new), strict=True)
    for source, target in layers:
        if source.trainable != target.trainable:
            target.trainable = source.trainable
    pairs = list(zip(old.variables, new.variables, strict=True))
    for source, target in pairs:
        if target.trainable != source.trainable:
            target.trainable = source.trainable
    return pairs
