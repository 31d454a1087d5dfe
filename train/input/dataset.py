"""Opens, checks and splits the data set of a run."""

import dataclasses
import functools
import hashlib

import tensorflow as tf
import tensorflow_datasets as tfds

from train import config
from train.cli import RunError
from train.input import builders
from train.input.builders import checks, folder
from train.input.order import VALIDATION_NAMES, IndexedSplit, ShardedSplit, Split


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set, split for training, validation and test.

    Attributes:
        shape: (height, width, channels) of the network's input.
        class_names: One name for each label.
        splits: The splits `"train"`, `"validation"` and `"test"`.
        settings: The data settings of the recipe.
        left_out: Numbers of unused files by kind, as text. Empty if there are none.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    settings: config.Data
    left_out: str = ""

    @property
    def fingerprint(self) -> str:
        """Digest of names, labels and encoded images, or of names of record files."""
        parts = [split.fingerprint() for split in self.splits.values()]
        parts += [repr(self.class_names).encode()]
        return hashlib.sha256(b"".join(parts)).hexdigest()


def load(settings: config.Data, data_dir: str | None = None) -> ImageData:
    """Opens the data set that a recipe names.

    Args:
        settings: The data settings of the recipe.
        data_dir: Directory in which tensorflow-datasets keeps prepared data. `None`
            selects its default.

    Raises:
        UsageError: If there is no data set of this name.
        RunError: If it exists but cannot be used; the message says why.
    """
    return read(builders.create_builder(settings, data_dir), settings)


def read(builder: tfds.core.DatasetBuilder, settings: config.Data) -> ImageData:
    """Checks and splits a prepared data set, and reads it if it fits into memory.

    The images of a folder are decoded once, to report damaged ones before training.

    Args:
        builder: Builder of the data set, of `builders.create_builder`.
        settings: The data settings of the recipe.

    Raises:
        RunError: If it cannot be used; the message says why.
    """
    check_features(builder, settings.name)
    features = builder.info.features
    class_names = tuple(features["label"].names)
    shape = _image_shape(settings, features["image"].shape)
    try:
        splits = _splits(builder, settings)
    except tf.errors.OpError as error:
        raise RunError(f"{settings.name} cannot be read: {error.message}") from error
    counts = {name: len(split) for name, split in splits.items()}
    if not all(counts.values()):
        raise RunError(
            f"{settings.name} has too few images. Expected at least 3 in a class, or 2 "
            f"in addition to test images. Received: {counts}."
        )
    if len(class_names) < 2:
        raise RunError(
            f"{settings.name} needs at least two classes. Received: {class_names}."
        )
    if lacking := splits["train"].lacking(len(class_names)):
        names = ", ".join(class_names[label] for label in sorted(lacking)[:5])
        raise RunError(
            f"{settings.name} has classes without a training image. Expected at least "
            f"one for each of {len(class_names)} classes. Received: none for {names}."
        )
    left_out = getattr(builder, "left_out", "")
    return ImageData(shape, class_names, splits, settings, left_out)


def load_again(
    settings: config.Data,
    fingerprint: str,
    data_dir: str | None,
    place: str | None = None,
) -> ImageData:
    """Opens the data set that a run was trained on.

    Args:
        settings: The data settings of the run.
        fingerprint: Fingerprint of its images and labels.
        data_dir: Directory of prepared data, as in `load`.
        place: Name of the data set at its present location. `None` means that it has
            not moved.

    Raises:
        UsageError, RunError: If it is not there, or is a different data set.
    """
    name = place or settings.name
    try:
        images = load(dataclasses.replace(settings, name=name), data_dir)
    except RunError as error:
        if place:
            raise
        raise RunError(
            f"{error} If it has moved, set --data to its new location."
        ) from error
    if images.fingerprint != fingerprint:
        raise RunError(
            f"{name} is not the data set that the run was trained on. Expected the "
            "same images, classes and file names, there or at another --data. "
            "Received: a different fingerprint."
        )
    return images


def check_features(builder: tfds.core.DatasetBuilder, name: str) -> None:
    """Checks the features of a data set, prepared or not.

    Raises:
        RunError: If it is not for classification, or has unusable class names.
    """
    features = builder.info.features
    expected = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(
        key in features and isinstance(features[key], kind)
        for key, kind in expected.items()
    ):
        raise RunError(
            f"{name} is not a classification data set. Expected the features "
            f"image and label. Received: {', '.join(features)}."
        )
    if features["label"].num_classes:  # some have them only once prepared
        checks.check_class_names(features["label"].names, name)


def _image_shape(settings, shape):
    height, width, channels = shape
    if settings.image_size is not None:
        height = width = settings.image_size
    if height is None or width is None:
        raise RunError(
            f"{settings.name} does not declare a single image size. Expected "
            "the training size in the recipe field data.image_size, such as 64. "
            "Received: none."
        )
    least, shorter_side = settings.image_size, settings.shorter_side
    if shorter_side is not None and (least is None or shorter_side < least):
        raise RunError(
            "Recipe field data.shorter_side needs data.image_size, and must not be "
            f"smaller. Received: {shorter_side} and {least}."
        )
    channels = channels or 3
    for name in ("mean", "std"):
        values = getattr(settings, name)
        if values is not None and len(values) not in (1, channels):
            raise RunError(
                f"Recipe field data.{name} must have 1 or {channels} values for these "
                f"images. Received: {values}."
            )
    if settings.rand_augment and channels != 3:
        raise RunError(
            "Recipe field data.rand_augment needs images with 3 channels. "
            f"Received: {channels} in {settings.name}."
        )
    return height, width, channels


def _splits(builder, settings):
    """Returns train, validation and test; missing splits are carved from train.

    If there is a validation split but no test split with labels, the former is used for
    the test, as for ImageNet.
    """
    opened = functools.partial(open_split, builder, limit=settings.memory_limit)
    given = builder.info.splits
    if "train" not in given:
        raise RunError(
            f"{settings.name} has no split to train on. Expected: train. "
            f"Received: {', '.join(given)}."
        )
    train = opened("train")
    validation = next((name for name in VALIDATION_NAMES if name in given), None)
    test = opened("test") if "test" in given else None
    if validation and (test is None or not test.is_labelled()):
        test, validation = opened(validation), None
    if test is None:
        train, test = train.carve(0.2)
    if not test.is_labelled():
        raise RunError(
            f"The test images of {settings.name} have no labels. Expected labels from "
            "0. Received: -1."
        )
    if validation:
        validation = opened(validation)
    elif settings.validation_fraction:
        train, validation = train.carve(settings.validation_fraction)
    else:
        validation = test
    return {"train": train, "validation": validation, "test": test}


def open_split(builder: tfds.core.DatasetBuilder, split: str, limit: float) -> Split:
    """Opens a split; its images are held in memory if they have at most `limit` GiB."""
    if isinstance(builder, folder.Folder):
        paths, labels = builder.files[split]
        digests = folder.check_images(builder.data_dir, paths)
        return IndexedSplit(tf.constant(paths), labels, digests)
    info = builder.info.splits[split]
    if info.num_bytes > limit * 2**30:
        return _open_shards(builder, info)
    dataset = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    dataset = dataset.map(lambda example: (example["image"], example["label"]))
    images, labels = dataset.batch(info.num_examples).get_single_element()
    return IndexedSplit(images, labels.numpy())


def _open_shards(builder, info):
    kind = builder.info.file_format
    if kind is not tfds.core.FileFormat.TFRECORD:
        raise RunError(
            f"{builder.name} is too large for memory and not stored as TFRecord. "
            f"Expected: tfrecord. Received: {kind.value}."
        )
    paths = tuple(str(path) for path in info.filepaths)
    missing = [path for path in paths if not tf.io.gfile.exists(path)]
    if missing:
        raise RunError(
            f"{builder.name} is incomplete. Expected {len(paths)} files of its split "
            f"{info.name}. Received: {len(missing)} missing, such as {missing[0]}."
        )
    name = f"{builder.info.full_name}/{info.name}"
    pairs = zip(paths, info.shard_lengths, strict=True)
    paths, lengths = zip(*(pair for pair in pairs if pair[1]), strict=True)
    return ShardedSplit(name, builder.info.features, paths, lengths)
