"""The private names of Keras that these packages use, in one place.

Any release of Keras may change them. `make test-keras` runs the tests with the oldest
and the newest release that setup.cfg allows. In addition, `BatchNormalization` here
overrides `_moments` of Keras' layer, which passes `_reduction_axes`, and
`train.engine.optimizers.PublishedSGD` overrides `_all_reduce_sum_gradients` and calls
`_get_variable_index` and `_use_weight_decay` of Keras' optimizer.
"""

from collections.abc import Callable, Iterator

import keras


def flatten_layers(
    layer: keras.Layer, include_self: bool = True, recursive: bool = True
) -> list[keras.Layer]:
    """Returns a layer and the layers inside it, at any depth if `recursive`."""
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def functional(model: keras.Model) -> keras.Function:
    """Returns the graph of a functional or a built Sequential model."""
    return model._functional if isinstance(model, keras.Sequential) else model


def run_graph(
    model: keras.Function,
    inputs: list,
    operation_fn: Callable | None = None,
    call_fn: Callable | None = None,
):
    """Runs a graph on `inputs`, each operation replaced by `operation_fn(operation)`.

    `call_fn(operation, *args, **kwargs)` takes the place of the calls.
    """
    functions = {"operation_fn": operation_fn, "call_fn": call_fn}
    given = {name: value for name, value in functions.items() if value is not None}
    return model._run_through_graph(inputs, **given)


def nodes(model: keras.Function) -> Iterator[tuple]:
    """Yields (operation, input tensors, output tensors) for each call in a graph."""
    for nodes_of_depth in model._nodes_by_depth.values():
        for node in nodes_of_depth:
            yield node.operation, node.input_tensors, node.outputs


def operation_of(tensor: keras.KerasTensor) -> keras.Operation:
    """Returns the operation that a symbolic tensor is an output of."""
    return tensor._keras_history.operation


def has_masked_input(layer: keras.Layer) -> bool:
    """Returns whether a symbolic call of a layer received a tensor with a mask."""
    tensors = (tensor for node in layer._inbound_nodes for tensor in node.input_tensors)
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors)
