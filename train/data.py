"""The one input path: a tensorflow-datasets builder -> batches of images and labels.

The encoded images of a split are held in memory (those of a folder stay on disk), so
that every image is reached by its index. What happens in step s of a run is a function
of (seed, s) alone: the order is a permutation of the indices for each epoch, and the
augmentation of an image is drawn from its place in that order. A run that starts again
at step s goes on exactly as if it had never stopped, on any number of replicas.
"""

import dataclasses
import functools
import hashlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from train import augment, config, datasets
from train.command import RunError
from train.datasets import folder

MEMORY_LIMIT = 4 * 2**30  # bytes of encoded images in a split
VALIDATION_NAMES = ("validation", "val", "valid")


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: string tensor, encoded images or, in a folder, their paths.
        labels: (N,) int64.
    """

    images: tf.Tensor
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Split":
        return Split(tf.gather(self.images, indices), self.labels[indices])


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set, split for training, validation and test.

    Attributes:
        shape: (height, width, channels) of what the network sees.
        class_names: one for each label.
        splits: `"train"`, `"validation"` and `"test"`.
        settings: the recipe's part about data.
        on_disk: the splits hold paths instead of encoded images.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    settings: config.Data
    on_disk: bool

    @property
    def fingerprint(self) -> str:
        """Of labels and encoded images, or of the paths of images that are on disk."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            digest.update(split.labels.tobytes())
            for entry in split.images.numpy():
                digest.update(hashlib.sha256(entry).digest())
        return digest.hexdigest()


def load(settings: config.Data, data_dir: str | None = None) -> ImageData:
    """Opens the data set that a recipe names.

    Args:
        settings: the recipe's part about data.
        data_dir: where tensorflow-datasets keeps prepared data; `None`: its default.

    Raises:
        UsageError: there is no data set of this name.
        RunError: it is there and cannot be used; the message says why.
    """
    builder = datasets.create_builder(settings, data_dir)
    features, on_disk = builder.info.features, isinstance(builder, tfds.ImageFolder)
    expected = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(
        name in features and isinstance(features[name], kind)
        for name, kind in expected.items()
    ):
        raise RunError(
            f"{settings.name} is no data set for classification. Expected the features "
            f"image and label. Received: {', '.join(features)}."
        )
    class_names = tuple(features["label"].names)
    shape = _image_shape(settings, features["image"].shape)
    try:
        splits = _splits(builder, settings, on_disk)
    except tf.errors.OpError as error:
        raise RunError(f"{settings.name} cannot be read: {error.message}") from error
    counts = {name: len(split) for name, split in splits.items()}
    if not all(counts.values()):
        raise RunError(
            f"{settings.name} has too few images. Expected at least 3 of a class, or 2 "
            f"besides test images. Received: {counts}."
        )
    if len(class_names) < 2 or any("\n" in name for name in class_names):
        raise RunError(
            f"{settings.name} needs at least two classes, with names of one line. "
            f"Received: {class_names}."
        )
    missing = set(range(len(class_names))) - set(splits["train"].labels.tolist())
    if missing:
        names = ", ".join(class_names[label] for label in sorted(missing)[:5])
        raise RunError(
            f"{settings.name} has classes without a training image. Expected at least "
            f"one of each of {len(class_names)} classes. Received: none of {names}."
        )
    return ImageData(shape, class_names, splits, settings, on_disk)


def _image_shape(settings, shape):
    height, width, channels = shape
    if settings.image_size is not None:
        height = width = settings.image_size
    if height is None or width is None:
        raise RunError(
            f"The images of {settings.name} are of different sizes. Expected the size "
            "to train at, such as --set=data.image_size=64. Received: none."
        )
    channels = channels or 3
    for name in ("mean", "std"):
        values = getattr(settings, name)
        if len(values) not in (1, channels):
            raise RunError(
                f"Recipe field data.{name} must have 1 or {channels} values for these "
                f"images. Received: {values}."
            )
    return height, width, channels


def _splits(builder, settings, on_disk):
    """train, validation and test; what the data set lacks is carved from train.

    A data set with a validation and no test split is tested on the former, as
    ImageNet is.
    """
    read = functools.partial(_read, builder, on_disk=on_disk)
    given = builder.info.splits
    if "train" not in given:
        raise RunError(
            f"{settings.name} has no split to train on. Expected: train. "
            f"Received: {', '.join(given)}."
        )
    train = read("train")
    validation = next((name for name in VALIDATION_NAMES if name in given), None)
    if "test" in given:
        test = read("test")
    elif validation:
        test, validation = read(validation), None
    else:
        train, test = carve(train, 0.2)
    if (test.labels < 0).any():
        raise RunError(
            f"The test images of {settings.name} have no labels. Expected labels from "
            "0. Received: -1."
        )
    if validation:
        validation = read(validation)
    else:
        train, validation = carve(train, settings.validation_fraction)
    return {"train": train, "validation": validation, "test": test}


def _read(builder, split, on_disk):
    info = builder.info.splits[split]
    if info.num_bytes > MEMORY_LIMIT:
        raise RunError(
            f"{builder.name} does not fit into memory. Expected at most "
            f"{MEMORY_LIMIT / 2**30:.0f} GiB of images in a split. "
            f"Received: {info.num_bytes / 2**30:.1f} GiB."
        )
    dataset = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    if on_disk:
        folder.check_images(builder.data_dir, split, dataset)
    key = "image/filename" if on_disk else "image"
    dataset = dataset.map(lambda example: (example[key], example["label"]))
    images, labels = dataset.batch(info.num_examples).get_single_element()
    return Split(images, labels.numpy())


def carve(split: Split, fraction: float) -> tuple[Split, Split]:
    """What remains of a split, and the fraction of each class that is put aside.

    Stratified and fixed: of each class evenly spaced images in stored order, at least
    one and never all. A class of one image keeps it.
    """
    aside = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        spaced = np.linspace(0, len(members), count, endpoint=False).astype(int)
        aside[members[spaced]] = True
    return split.take(np.flatnonzero(~aside)), split.take(np.flatnonzero(aside))


def training_batches(
    data: ImageData, seed: int, batch_size: int, start: int, stop: int, context=None
) -> tf.data.Dataset:
    """Images float32 (N, H, W, C), standardized, and labels of steps start to stop - 1.

    With mixup also the labels of the images that were mixed in, (N,), and the share of
    the image's own label, (N,).

    Args:
        data: the data set.
        seed: of order and augmentation.
        batch_size: over all replicas.
        start: first step.
        stop: one past the last step.
        context: `tf.distribute.InputContext`; batches are then those of a replica.
    """
    split, settings = data.splits["train"], data.settings

    def example(position):
        epoch, offset = position // len(split), position % len(split)
        index = tf.random.experimental.index_shuffle(
            offset, tf.stack([seed, epoch]), len(split) - 1
        )
        seeds = tf.random.experimental.stateless_split(
            tf.random.experimental.stateless_fold_in([seed, 1], position), 3
        )
        image = _decode_entry(data, split.images[index])
        if settings.min_crop_area < 1:
            image = augment.random_resized_crop(
                image, data.shape[:2], settings.min_crop_area, seeds[0]
            )
        elif settings.image_size:
            image = augment.resize_and_crop(image, data.shape[:2])
        if settings.shift:
            image = augment.random_shift(image, settings.shift, seeds[1])
        if settings.flip:
            image = augment.random_flip(image, seeds[2])
        image = tf.ensure_shape(image, data.shape)
        return standardize(image, settings), tf.gather(split.labels, index)

    positions = tf.data.Dataset.range(start * batch_size, stop * batch_size)
    per_replica = context.get_per_replica_batch_size(batch_size) if context else None
    batches = positions.map(example, tf.data.AUTOTUNE).batch(
        per_replica or batch_size, drop_remainder=True
    )
    if settings.mixup:
        replicas = batch_size // (per_replica or batch_size)
        batches = batches.enumerate(start * replicas).map(
            lambda number, batch: augment.mixup(
                *batch,
                settings.mixup,
                tf.random.experimental.stateless_fold_in([seed, 2], number),
            ),
            tf.data.AUTOTUNE,
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    data: ImageData, split: str, batch_size: int, context=None, standardized=True
) -> tf.data.Dataset:
    """Every image of a split once: images, labels and weights of static shape.

    The last batch is filled up with images of weight 0, so that sums over weights are
    exact whatever the batch size and number of replicas.

    Args:
        data: the data set.
        split: `"train"`, `"validation"` or `"test"`.
        batch_size: over all replicas.
        context: `tf.distribute.InputContext`; batches are then those of a replica.
        standardized: as the network sees them; otherwise uint8, as exports take them.
    """
    chosen = data.splits[split]

    def example(position):
        index = tf.minimum(position, len(chosen) - 1)
        image = evaluation_image(data, chosen.images[index])
        if standardized:
            image = standardize(image, data.settings)
        weight = tf.cast(position < len(chosen), tf.float32)
        return image, tf.gather(chosen.labels, index), weight

    steps = evaluation_steps(data, split, batch_size)
    per_replica = context.get_per_replica_batch_size(batch_size) if context else None
    return (
        tf.data.Dataset.range(steps * batch_size)
        .map(example, tf.data.AUTOTUNE)
        .batch(per_replica or batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_steps(data: ImageData, split: str, batch_size: int) -> int:
    """Batches in `evaluation_batches`, over all replicas."""
    return -(-len(data.splits[split]) // batch_size)


def evaluation_image(data: ImageData, entry):
    """An entry of a split as uint8 (H, W, C), without any randomness."""
    image = _decode_entry(data, entry)
    if data.settings.image_size:
        image = fit(image, data.shape)
    return tf.ensure_shape(image, data.shape)


def fit(image, shape: tuple[int, int, int]):
    """A uint8 image of any size at the size that the network takes."""
    image = augment.resize_and_crop(image, shape[:2])
    return tf.saturate_cast(tf.round(tf.ensure_shape(image, shape)), tf.uint8)


def decode(encoded, channels: int):
    """A JPEG or PNG as uint8 (H, W, channels); with 3 channels also a BMP or GIF."""
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def standardize(images, settings: config.Data):
    """(images / 255 - mean) / std, float32."""
    mean, std = (tf.constant(v, tf.float32) for v in (settings.mean, settings.std))
    return (tf.cast(images, tf.float32) / 255.0 - mean) / std


def _decode_entry(data, entry):
    return decode(tf.io.read_file(entry) if data.on_disk else entry, data.shape[-1])
