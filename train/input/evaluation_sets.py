"""Images to evaluate a network on, whose classes may be fewer than the network's, or
have other names, and may be several for an image.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from train import config, paths
from train.cli import RunError, UsageError
from train.input import builders, corruptions, dataset
from train.input.builders import folder
from train.input.order import VALIDATION_NAMES, Share, Split

LABELS = ("label", "real_label", "correct_multi_labels")  # names of the feature
# Data sets that declare all classes of ImageNet and have images of 200. Their authors
# let a network choose among these only.
SUBSETS = ("imagenet_a", "imagenet_r")


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """The images of a split, with one or several labels each.

    Attributes:
        name: Name of the data set.
        split: Name of the split.
        class_names: One name for each label.
        examples: Index, encoded image, labels (L,), and name or index of each image.
        count: Number of images.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    examples: tf.data.Dataset
    count: int

    def present(self) -> np.ndarray:
        """Returns the labels that occur, which reads all images."""
        labels = self.examples.map(lambda index, image, labels, name: labels)
        labels = np.unique(np.concatenate([*labels.as_numpy_iterator()]))
        return labels[labels >= 0]

    def thinned(self, most: int | None) -> "EvaluationSet":
        """Returns at most this number of the images, evenly spaced; `None`: all."""
        step = -(-self.count // most) if most else 1
        examples, count = self.examples.shard(step, 0), -(-self.count // step)
        return dataclasses.replace(self, examples=examples, count=count)


def of_split(
    name: str, split_name: str, class_names: tuple[str, ...], split: Split
) -> EvaluationSet:
    """Returns the images of a split that has one label for each."""
    names = [os.fsencode(n) if isinstance(n, str) else n for n in split.names()]
    names = tf.data.Dataset.from_tensor_slices(names)
    images = split.evaluation(Share(0, 1, 1)).take(len(split))
    examples = tf.data.Dataset.zip(images, names).enumerate()
    examples = examples.map(
        lambda index, each: (index, each[0][0], each[0][1][tf.newaxis], each[1])
    )
    return EvaluationSet(name, split_name, class_names, examples, len(split))


def open_set(
    name: str,
    split: str | None = None,
    data_dir: str | None = None,
    class_names: tuple[str, ...] = (),
) -> EvaluationSet:
    """Opens a data set that is prepared, or on this machine.

    Args:
        name: Name of the data set, as `data.name` of a recipe.
        split: Name of the split. `None` selects test, or else validation, or else the
            only one.
        data_dir: Directory in which tensorflow-datasets keeps its files.
        class_names: Class names of idx files, whose labels are only numbers.

    Raises:
        UsageError: If there is no data set or split of this name.
        RunError: If it cannot be used; the message says why.
    """
    is_idx = name.startswith("idx:")
    settings = config.Data(name, class_names=class_names if is_idx else ())
    builder = builders.create_builder(settings, data_dir)
    split = _chosen(name, split, [*builder.info.splits])
    if isinstance(builder, folder.Folder):
        images = dataset.open_split(builder, split, settings.memory_limit)
        return of_split(name, split, builder.info.features["label"].names, images)
    features = builder.info.features
    key = next((key for key in LABELS if key in features), None)
    has_images = "image" in features and isinstance(
        features["image"], tfds.features.Image
    )
    if key is None or not has_images:
        raise RunError(
            f"{name} is not a classification data set. Expected the features image and "
            f"one of {', '.join(LABELS)}. Received: {', '.join(features)}."
        )
    skip = {"image": tfds.decode.SkipDecoding()}
    images = builder.as_dataset(split=split, decoders=skip).enumerate()
    examples = images.map(
        lambda index, example: (
            index,
            example["image"],
            tf.reshape(example[key], [-1]),
            example.get("file_name", index),
        )
    )
    names = getattr(features[key], "feature", features[key]).names
    count = builder.info.splits[split].num_examples
    return EvaluationSet(name, split, tuple(names), examples, count)


def _chosen(name, split, splits):
    if split is None:
        known = [each for each in ("test", *VALIDATION_NAMES) if each in splits]
        if not known and len(splits) > 1:
            raise UsageError(
                f"Expected --split=NAME for {name}, with one of {', '.join(splits)}. "
                "Received: none."
            )
        return (known or splits)[0]
    if split not in splits:
        raise UsageError(
            f"{name} has no such split. Expected one of {', '.join(splits)}. "
            f"Received: --split={split}."
        )
    return split


def match(
    images: EvaluationSet,
    class_names: Sequence[str],
    mapping: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Returns the network's label for each label of a data set, by their names.

    Args:
        images: The data set.
        class_names: Class names of the network.
        mapping: The network's name for names of the data set. The others have no class;
            their label is -1. `None`: the network has all names of the data set.

    Raises:
        RunError: If it lacks one.
        UsageError: If the mapping has a name that one of the two does not have.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    if mapping is None:
        mapping = {name: name for name in images.class_names}
        if unknown := [name for name in mapping if name not in numbers]:
            raise RunError(
                f"{images.name} has other classes than the network. Expected some of "
                f"the network's {len(class_names)}, such as {_some(class_names)}, or a "
                f"--label_map. Received: {len(images.class_names)} classes, "
                f"{len(unknown)} of which it does not have, such as {_some(unknown)}."
            )
    for names, known, whose in (
        (mapping, images.class_names, images.name),
        (mapping.values(), class_names, "the network"),
    ):
        if wrong := sorted({*names} - {*known}):
            raise UsageError(
                f"Expected classes of {whose} in --label_map, such as {_some(known)}. "
                f"Received: {_some(wrong)}."
            )
    return np.array([numbers.get(mapping.get(each), -1) for each in images.class_names])


def read_map(path: str) -> dict[str, str]:
    """Reads a mapping of class names, a JSON object.

    Raises:
        RunError: If the file holds something else.
    """
    paths.require_regular(path)
    try:
        mapping = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        if not all(isinstance(name, str) for name in mapping.values()):
            raise TypeError("a value that is not a name")
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is no map of labels. Expected a JSON object of names. "
            f"Received: {error}."
        ) from error
    return mapping


def _some(names):
    return ", ".join(map(repr, [*names][:3]))


def batches(
    images: EvaluationSet,
    decode: Callable,
    to_network: np.ndarray,
    batch_size: int,
    corruption: tuple[str, int, int] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields uint8 images (N, H, W, C), labels (N, L) of the network, names (N,).

    Labels are padded with -1. Images without any are left out.

    Args:
        images: The data set.
        decode: Function of an encoded image that returns uint8 (H, W, C).
        to_network: The network's label for each label, of `match`.
        batch_size: Number of images.
        corruption: Name, severity and seed. `None`: no corruption.

    Raises:
        RunError: If the files are damaged.
    """
    decoded = images.examples.map(
        lambda index, image, *others: (index, decode(image), *others), tf.data.AUTOTUNE
    )
    padded = decoded.padded_batch(
        batch_size, padding_values=(None, None, tf.constant(-1, tf.int64), None)
    )
    try:
        for indices, pixels, labels, names in padded.prefetch(1).as_numpy_iterator():
            labels = np.where(labels >= 0, to_network[labels], -1)
            kept = labels.max(axis=1, initial=-1) >= 0
            pixels, labels, names = pixels[kept], labels[kept], names[kept]
            if corruption:
                name, severity, seed = corruption
                pixels = np.array(
                    [
                        corruptions.corrupt(image, name, severity, (seed, int(index)))
                        for image, index in zip(pixels, indices[kept], strict=True)
                    ]
                )
            if kept.any():
                yield pixels, labels, names
    except tf.errors.OpError as error:
        raise RunError(f"{images.name} cannot be read: {error.message}") from error
