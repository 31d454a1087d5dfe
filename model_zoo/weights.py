"""Weights for the networks: tags with their sha256, strict loading, new heads."""

import dataclasses
import hashlib
import logging
import os
import pathlib
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


TAGS: dict[tuple[str, str], WeightSet] = {}


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


def load(model: keras.Model, weights: str | os.PathLike | None) -> None:
    """Loads a `.weights.h5` file of the same network; `None` leaves it initialized.

    If the file has a head for another number of classes, or the model has none, all
    other weights are loaded, and one line of the log says so.

    Raises:
        ValueError: no such file, not a weights file, or one of another network.
    """
    if weights is None:
        return
    path = os.fspath(weights)
    if not os.path.isfile(path):
        raise ValueError(
            "`weights` must be None, the path of a .weights.h5 file, or a tag of "
            f"`model_info`. Received: weights={path!r}."
        )
    try:
        arrays, classes = _contents(path)
        target = _with_head(model, classes)
        if arrays != len(target.weights):
            raise ValueError(
                f"{arrays} arrays in the file, {len(target.weights)} in the network."
            )
        with warnings.catch_warnings(action="ignore"):  # one error says it all
            target.load_weights(path)
    except ValueError as error:
        raise ValueError(
            f"{path!r} holds the weights of another network than {model.name}: {error}"
        ) from error
    except OSError as error:
        raise ValueError(
            f"`weights` must be the path of a .weights.h5 file. Received: {path!r}, "
            f"which is none or is damaged: {error}"
        ) from error
    if target is not model:
        logging.getLogger(__name__).warning(
            "%s: loaded all but the head of %d classes in %s",
            model.name,
            classes,
            path,
        )


def _contents(path):
    """Number of arrays in a weights file, and of classes of its head (0: no head)."""
    import h5py  # comes with Keras

    shapes = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: shapes.update({name: getattr(item, "shape", None)})
        )
    head = shapes.get("layers/dense/vars/1") or (0,)
    return sum(shape is not None for shape in shapes.values()), head[0]


def _with_head(model, classes):
    """The model, with a head of that many classes; its other layers are shared."""
    names = [layer.name for layer in model.layers]
    if not classes or (HEAD in names and model.output_shape[-1] == classes):
        return model
    if HEAD in names:
        features = model.get_layer(HEAD).input
    else:
        features = model.output
        if len(features.shape) == 4:
            features = keras.layers.GlobalAveragePooling2D()(features)
    head = keras.layers.Dense(classes, dtype=features.dtype)(features)
    return keras.Model(model.inputs, head)
