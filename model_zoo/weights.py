"""Weights for the networks: tags with their sha256, strict loading, new heads."""

import collections
import dataclasses
import hashlib
import logging
import math
import os
import pathlib
import re
import textwrap
import warnings
from typing import NamedTuple

import keras
import numpy as np

from model_zoo.blocks import HEAD

DIRECTORY = pathlib.Path(__file__).parent / "pretrained"
# Compression does not shrink trained weights below a hundredth of their size.
EXPANSION = 100
SMALL = 2**20  # bytes of an array that may be compressed further, such as zeros


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """Weights included in the zoo, `NAME.TAG.weights.h5` in `model_zoo/pretrained`.

    Attributes:
        sha256: SHA-256 of the file, compared on every read.
        input_shape: (height, width, channels) of the images, in pixels.
        classes: Number of classes.
        class_names: Name of each class.
        mean, std: Mean and standard deviation of the pixels on a scale of 0 to 1, one
            for each channel.
        recipe: The command that trained the weights.
        metrics: What was measured, and on which images.
        licence: Licence of the weights and of the data they were trained on.
    """

    sha256: str
    input_shape: tuple[int, int, int]
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: str
    metrics: dict[str, float]
    licence: str


FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _fashion_mnist(kind: str, sha256: str, top1: float, loss: float) -> WeightSet:
    return WeightSet(
        sha256=sha256,
        input_shape=(28, 28, 1),
        classes=10,
        class_names=FASHION_MNIST,
        mean=(0.286,),
        std=(0.353,),
        recipe=(
            f"python -m train --recipe=fashion_mnist_resnet20_{kind} --data=idx:DIR "
            "--workdir=RUN --set=epochs=15 --set=optimizer.warmup_epochs=1 "
            "--set=data.shift=2"
        ),
        metrics={"test_top1": top1, "test_loss": loss, "test_images": 10_000},
        licence="weights: Apache-2.0; data: Fashion-MNIST, Zalando SE, MIT",
    )


TAGS = {
    ("resnet20_an", "fashion_mnist"): _fashion_mnist(
        "an",
        "b734358e4dd3d16be0897805c4b0a2ab7e9da778adcc5cf414bba6fdcf664530",
        top1=0.9338,
        loss=0.1837,
    ),
    ("resnet20_bn", "fashion_mnist"): _fashion_mnist(
        "bn",
        "fc86a5edaa50bb384d2aef0450d75588368b82077f9faf040231c8887a29e5da",
        top1=0.9351,
        loss=0.1773,
    ),
}


def tags(model_name: str) -> tuple[str, ...]:
    """Returns the tags of the weights that the zoo includes for this network."""
    return tuple(tag for name, tag in TAGS if name == model_name)


def weight_set(model_name: str, tag: str) -> WeightSet:
    """Returns the record of a tag.

    Raises:
        ValueError: If there is no such tag.
    """
    if (model_name, tag) not in TAGS:
        raise ValueError(
            f"{model_name} has weights with these tags: {tags(model_name) or 'none'}. "
            f"Received: {tag!r}."
        )
    return TAGS[model_name, tag]


def verified_file(model_name: str, tag: str) -> pathlib.Path:
    """Returns the file of a tag after checking its sha256.

    Raises:
        ValueError: If the file is missing or its sha256 differs.
    """
    path = DIRECTORY / f"{model_name}.{tag}.weights.h5"
    expected = weight_set(model_name, tag).sha256
    if not path.is_file():
        raise ValueError(
            f"The weights {model_name}.{tag} must be in {str(path)!r}. "
            "Received: no such file."
        )
    received = hashlib.sha256(path.read_bytes()).hexdigest()
    if received != expected:
        raise ValueError(
            f"{str(path)!r} is damaged: its sha256 must be {expected}. "
            f"Received: {received}."
        )
    return path


def load_weights(
    model: keras.Model, weights: str | os.PathLike | None, head: str = HEAD
) -> None:
    """Loads a `.weights.h5` file of the same network; `None` keeps the initial weights.

    `head` is the name of the classifier's layer.

    If the file or the model has no head, or their heads differ in the number of
    classes, all other weights are loaded and a log message says so.

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
