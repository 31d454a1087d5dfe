"""Loads weights files into networks: strict, but for other classes and channels."""

import collections
import logging
import math
import os
import re
import textwrap
import warnings
from typing import NamedTuple

import keras
import numpy as np

from model_zoo.blocks import HEAD, data_format

# Compression does not shrink trained weights below a hundredth of their size.
EXPANSION = 100
SMALL = 2**20  # bytes of an array that may be compressed further, such as zeros


def load_weights(
    model: keras.Model, weights: str | os.PathLike | None, head: str = HEAD
) -> None:
    """Loads a `.weights.h5` file of the same network; `None` keeps the initial weights.

    `head` is the name of the classifier's layer.

    If the file or the model has no head, or their heads differ in the number of
    classes, all other weights are loaded and a log message says so. If only the input
    channels of the first convolution differ, its kernel is adapted (`adapt_kernel`),
    which is logged, too.

    Raises:
        ValueError: If the file does not exist, is not a weights file, belongs to
            another network, or has numbers that are not finite. The model may then be
            partly loaded.
    """
    if weights is None:
        return
    path, received, received_order = _contents(weights)
    expected = collections.defaultdict(collections.Counter)
    for layer in model.layers:
        for variable in layer.weights:
            kind = "integer" if "int" in variable.dtype else "float"
            array = Array(kind, tuple(variable.shape))
            expected[_stable_name(layer.name)][array] += 1
    classes, own_classes = (_classes(each, head, path) for each in (received, expected))
    skipped = []
    if classes != own_classes:
        for arrays in (received, expected):
            arrays.pop(_stable_name(head), None)
        skipped = [layer for layer in model.layers if layer.name == head]
    stem = next(layer for layer in model.layers if layer.weights)
    channels = _other_channels(stem, received, expected)
    if channels:
        received[_stable_name(stem.name)] = expected[_stable_name(stem.name)]
        skipped.append(stem)
    differences = [
        f"{name!r} has {_listed(received[name] - expected[name])}, "
        f"expected {_listed(expected[name] - received[name])}"
        for name in sorted({*received, *expected})
        if received[name] != expected[name]
    ]
    if differences:
        raise ValueError(
            f"{path!r} holds the weights of a network other than {model.name}: "
            f"{textwrap.shorten('; '.join(differences[:3]), 600)}"
        )
    order = [
        (type(layer).__name__, _stable_name(layer.name))
        for layer in model.layers
        if layer.weights
    ]
    if _sequences(order, expected) != _sequences(received_order, expected):
        raise ValueError(
            f"{path!r} is damaged. Expected the layers of {model.name} in their order. "
            "Received: layers in another order."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # the error suffices
            model.load_weights(path, objects_to_skip=skipped)
            if channels:
                _load_stem(stem, channels, path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path!r} cannot be loaded into {model.name}: "
            f"{textwrap.shorten(str(error), 300)}"
        ) from error
    for variable in model.weights:
        try:
            require_usable(keras.ops.convert_to_numpy(variable), variable)
        except ValueError as error:
            raise ValueError(f"{path!r} is refused: {variable.path} {error}") from error
    if classes != own_classes:
        log_new_head(model, classes, path)
    if channels:
        logging.getLogger(__name__).warning(
            "%s: adapted the input channels of %s, %d in %s, to %d",
            *(model.name, stem.name, channels, path, stem.kernel.shape[-2]),
        )


def adapt_kernel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapts the kernel of a convolution to another number of input channels.

    For one channel, the kernel is summed over its channels, (height, width, channels,
    filters). Otherwise its channels are repeated in turn and scaled by old / new. From
    one channel to three and back, the outputs for grey images stay the same.
    """
    if channels == 1:
        return kernel.sum(axis=-2, keepdims=True)
    own = kernel.shape[-2]
    return kernel[..., np.arange(channels) % own, :] * (own / channels)


def log_new_head(model: keras.Model, classes: int, path: str) -> None:
    """Logs that the head of a model is new; the weights are for other classes or 0."""
    head = f"is for {classes} classes" if classes else "is missing"
    logging.getLogger(__name__).warning(
        "%s: loaded all but the head, which %s in %s", model.name, head, path
    )


def classes_in(weights: str | os.PathLike, head: str) -> int:
    """Returns the number of classes of the layer `head` in a weights file, 0 if none.

    Raises:
        ValueError: If the file does not exist, is not a weights file, or has a damaged
            head.
    """
    path, arrays, _ = _contents(weights)
    return _classes(arrays, head, path)


def require_usable(array: np.ndarray, variable: keras.Variable) -> None:
    """Raises a ValueError if a variable cannot have these values."""
    if not np.isfinite(array).all():
        raise ValueError(f"holds numbers that are not finite in {variable.dtype}")
    if variable.name.endswith("moving_variance") and (array < 0).any():
        raise ValueError("holds variances below 0")


class Array(NamedTuple):
    """What is known about an array before it is read."""

    kind: str
    shape: tuple[int, ...]


def _listed(arrays):
    texts = [f"{kind} {shape}" for kind, shape in sorted(arrays.elements())]
    return ", ".join(texts[:4]) + (" ..." if len(texts) > 4 else "") or "nothing else"


def _classes(arrays, head, path):
    """Returns the classes of a head, the last axis of all its arrays; 0 if none."""
    shapes = [shape for _, shape in arrays.get(_stable_name(head), ())]
    classes = {shape[-1] if shape else 0 for shape in shapes}
    if len(classes) > 1 or 0 in classes:
        raise ValueError(
            f"{path!r} is damaged. Expected the arrays of its classifier {head!r} to "
            "agree on the number of classes, >= 1. "
            f"Received: {', '.join(map(str, shapes))}."
        )
    return max(classes, default=0)


def _other_channels(layer, received, expected):
    """Returns the input channels of a convolution in a file if only they differ, or 0.

    Those of a kernel are its second to last axis.
    """
    name = _stable_name(layer.name)
    stored = [*(received[name] - expected[name]).elements()]
    own = [*(expected[name] - received[name]).elements()]
    if not isinstance(layer, keras.layers.Conv2D) or not len(stored) == len(own) == 1:
        return 0
    (kind, shape), kernel = stored[0], tuple(layer.kernel.shape)
    fits = (kind, *shape[:-2], *shape[-1:]) == ("float", *kernel[:-2], kernel[-1])
    is_kernel = own[0].shape == kernel and len(shape) == len(kernel)
    return shape[-2] if fits and is_kernel and layer.groups == 1 else 0


def _load_stem(stem, channels, path):
    """Loads the first convolution from a file in which it has other input channels."""
    inputs = keras.Input(data_format((None, None, channels)))
    stored = type(stem).from_config(stem.get_config())
    keras.Model(inputs, stored(inputs)).load_weights(path)
    kernel, *bias = stored.get_weights()
    stem.set_weights([adapt_kernel(kernel, stem.kernel.shape[-2]), *bias])


def _stable_name(name):
    """Removes the counter that Keras adds to the names it generates in a process."""
    return re.sub(r"_\d+$", "", name)


def _sequences(layers, names_to_load):
    """Counts how often the layers of a kind have these names, in this order."""
    names = collections.defaultdict(list)
    for kind, name in layers:
        if name in names_to_load:
            names[kind].append(name)
    return collections.Counter(map(tuple, names.values()))


def _contents(path) -> tuple[str, dict[str, collections.Counter], list]:
    """Returns the path of a weights file as text, the arrays by layer, and their order.

    Keras finds layers by class and number, not by name. The order is that of the
    numbers: (group without its number, name).

    No data is read: the shapes that a file declares may be far larger than the file.
    """
    is_path = isinstance(path, (str, os.PathLike))
    path = os.fsdecode(path) if is_path else path
    if not is_path or not path.endswith(".weights.h5") or not os.path.isfile(path):
        raise ValueError(
            "`weights` must be None, the path of a .weights.h5 file, or a tag of "
            f"`model_info(name).weights`. Received: weights={path!r}."
        )
    arrays, names = collections.defaultdict(collections.Counter), {}
    try:
        problem = _read_contents(path, arrays, names)
    except Exception as error:  # HDF5 raises many types of exceptions
        raise ValueError(
            f"{path!r} is not a .weights.h5 file or is damaged: "
            f"{textwrap.shorten(str(error), 300)}"
        ) from error
    if problem:
        raise ValueError(f"{path!r} is refused: {problem}.")
    numbered = {group: re.fullmatch(r"(.*?)(?:_(\d+))?", group) for group in names}
    order = sorted(names, key=lambda group: int(numbered[group][2] or 0))
    return path, arrays, [(numbered[group][1], names[group]) for group in order]


def _read_contents(path, arrays, names):
    """Counts the arrays of each layer; returns the problem found, or `None`."""
    import h5py  # comes with Keras

    def visit_link(path, link):
        if not isinstance(link, h5py.HardLink):
            return f"{path!r} is a link. Expected all arrays in the file itself"

    def visit(path, item):
        if not isinstance(item, h5py.Dataset):
            return None
        if problem := _dataset_problem(item):
            return f"{path!r} {problem}"
        # layers/dense_1/vars/0, or deeper; layers/dense_1/vars has the layer's name.
        group = "/".join(path.split("/")[:2])
        attributes = file[f"{group}/vars"].attrs if f"{group}/vars" in file else {}
        names[group] = name = _stable_name(str(attributes.get("name", path)))
        arrays[name][Array(_kind(item), item.shape)] += 1

    with h5py.File(path) as file:
        return file.visititems_links(visit_link) or file.visititems(visit)


def _kind(item):
    """Returns the kind of an HDF5 array; "" if no layer has such a variable."""
    if item.dtype == "V2" and item.attrs.get("dtype") == "bfloat16":  # as in Keras
        return "float"
    known = item.dtype.itemsize <= 8
    return {"f": "float", "i": "integer", "u": "integer"}.get(
        item.dtype.kind, ""
    ) * known


def _dataset_problem(item):
    """Returns why Keras cannot have written an HDF5 array, or `None`."""
    if item.shape is None:
        return "has no shape. Expected an array"
    if not _kind(item):
        return f"holds {item.dtype}. Expected floating point or integers"
    if item.is_virtual or item.external:
        return "has its numbers in another file. Expected them in the file itself"
    stored = item.id.get_storage_size()
    declared = item.dtype.itemsize * max(
        math.prod(shape) for shape in (item.shape, item.chunks or (0,))
    )
    if declared and not stored or declared > max(SMALL, EXPANSION * stored):
        return (
            f"declares {declared} bytes. Expected that many in the file, or fewer with "
            f"compression. Received: {stored}"
        )
    return None
