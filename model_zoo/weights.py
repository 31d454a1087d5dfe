"""Weights for the networks: tags with their sha256, strict loading, new heads."""

import collections
import dataclasses
import hashlib
import logging
import os
import pathlib
import re
import textwrap
import warnings

import keras

from model_zoo.blocks import HEAD

DIRECTORY = pathlib.Path(__file__).parent / "pretrained"


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """Weights that come with the zoo, `NAME.TAG.weights.h5` in `model_zoo/pretrained`.

    Attributes:
        sha256: of the file; compared every time it is read.
        input_shape: (height, width, channels) of the images, pixels.
        classes: number of classes.
        class_names: one for each of them.
        mean, std: of the pixels on a scale of 0 to 1, one for each channel.
        recipe: the command that made them.
        metrics: what was measured, and on what images.
        licence: of the weights and of the data they were trained on.
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
    """Tags of the weights that come with the zoo for this network."""
    return tuple(tag for name, tag in TAGS if name == model_name)


def record(model_name: str, tag: str) -> WeightSet:
    """What is known of a tag.

    Raises:
        ValueError: no such tag.
    """
    if (model_name, tag) not in TAGS:
        raise ValueError(
            f"{model_name} has weights of these tags: {tags(model_name) or 'none'}. "
            f"Received: {tag!r}."
        )
    return TAGS[model_name, tag]


def verified_file(model_name: str, tag: str) -> pathlib.Path:
    """The file of a tag.

    Raises:
        ValueError: the file is not what its sha256 says, or is missing.
    """
    path = DIRECTORY / f"{model_name}.{tag}.weights.h5"
    expected = record(model_name, tag).sha256
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


def load(
    model: keras.Model, weights: str | os.PathLike | None, head: str = HEAD
) -> None:
    """Loads a `.weights.h5` file of the same network; `None` leaves it initialized.

    `head` is the name of the classifier's layer.

    If one of file and model has no head, or one for another number of classes, all
    other weights are loaded, and one line of the log says so.

    Raises:
        ValueError: no such file, not a weights file, or one of another network.
    """
    if weights is None:
        return
    received, classes = _contents(weights, head)
    path = os.fspath(weights)
    target = _with_head(model, classes, head)
    expected = collections.Counter()
    for each in target.layers:
        expected[_stable_name(each.name)] += len(each.weights)
    differences = [
        f"{name} ({received[name]} arrays, expected {expected[name]})"
        for name in sorted(expected | received)
        if received[name] != expected[name]
    ]
    try:
        if not differences:
            with warnings.catch_warnings(action="ignore"):  # one error says it all
                target.load_weights(path)
    except (ValueError, OSError) as error:
        differences = [textwrap.shorten(str(error), 300)]
    if differences:
        raise ValueError(
            f"{path!r} holds the weights of another network than {model.name}: "
            f"{'; '.join(differences[:3])}"
        )
    if target is not model:
        head = f"is for {classes} classes" if classes else "is missing"
        logging.getLogger(__name__).warning(
            "%s: loaded all but the head, which %s in %s", model.name, head, path
        )


def classes_in(weights: str | os.PathLike, head: str) -> int:
    """Classes of the head in a weights file, by the name of its layer; 0: no head.

    Raises:
        ValueError: no such file, or not a weights file.
    """
    return _contents(weights, head)[1]


def _contents(path, head) -> tuple[collections.Counter, int]:
    """Arrays of each layer in a weights file, and classes of its head (0: no head)."""
    is_path = isinstance(path, (str, os.PathLike))
    path = os.fspath(path) if is_path else path
    if not is_path or not path.endswith(".weights.h5") or not os.path.isfile(path):
        raise ValueError(
            "`weights` must be None, the path of a .weights.h5 file, or a tag of "
            f"`model_info(name).weights`. Received: weights={path!r}."
        )
    try:
        return _read_contents(path, head)
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path!r} is no .weights.h5 file or is damaged: {error}"
        ) from error


def _stable_name(name):
    """Without the counter that Keras adds to the names it makes up in a process."""
    return re.sub(r"_\d+$", "", name)


def _read_contents(path, head):
    import h5py  # comes with Keras

    arrays, classes = collections.Counter(), 0

    def visit(path, item):
        nonlocal classes
        if not isinstance(item, h5py.Dataset):
            return
        # layers/dense_1/vars/0, or deeper; layers/dense_1/vars has the layer's name.
        group = "/".join([*path.split("/")[:2], "vars"])
        attributes = file[group].attrs if group in file else {}
        name = str(attributes.get("name", path))
        arrays[_stable_name(name)] += 1
        if name == head:
            classes = item.shape[-1]

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays, classes


def _with_head(model, classes, name):
    """The model with a head of that many classes (0: none); other layers are shared."""
    has_head = name in [layer.name for layer in model.layers]
    if classes == (model.output_shape[-1] if has_head else 0):
        return model
    features = model.get_layer(name).input if has_head else model.output
    if not classes:
        return keras.Model(model.inputs, features)
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    head = keras.layers.Dense(classes, dtype=features.dtype, name=name)(features)
    return keras.Model(model.inputs, head)
