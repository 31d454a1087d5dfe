"""A data set's name -> its images: opened, checked and split for a run."""

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
        shape: (height, width, channels) of what the network sees.
        class_names: one for each label.
        splits: `"train"`, `"validation"` and `"test"`.
        settings: the recipe's part about data.
        left_out: numbers and kinds of files that are no part of it, in words.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    settings: config.Data
    left_out: str = ""

    @property
    def fingerprint(self) -> str:
        """Of names, labels and encoded images, or of the names of files of records."""
        parts = [split.fingerprint() for split in self.splits.values()]
        parts += [repr(self.class_names).encode()]
        return hashlib.sha256(b"".join(parts)).hexdigest()


def load(settings: config.Data, data_dir: str | None = None) -> ImageData:
    """Opens the data set that a recipe names.

    Args:
        settings: the recipe's part about data.
        data_dir: where tensorflow-datasets keeps prepared data; `None`: its default.

    Raises:
        UsageError: there is no data set of this name.
        RunError: it is there and cannot be used; the message says why.
    """
    builder = builders.create_builder(settings, data_dir)
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
            f"{settings.name} has too few images. Expected at least 3 of a class, or 2 "
            f"besides test images. Received: {counts}."
        )
    if len(class_names) < 2:
        raise RunError(
            f"{settings.name} needs at least two classes. Received: {class_names}."
        )
    if lacking := splits["train"].lacking(len(class_names)):
        names = ", ".join(class_names[label] for label in sorted(lacking)[:5])
        raise RunError(
            f"{settings.name} has classes without a training image. Expected at least "
            f"one of each of {len(class_names)} classes. Received: none of {names}."
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
        settings: of the run.
        fingerprint: of its images and labels.
        data_dir: as in `load`.
        place: name of the data set where it lies now; `None`: where it lay then.

    Raises:
        UsageError, RunError: it is not there, or there are others.
    """
    name = place or settings.name
    try:
        images = load(dataclasses.replace(settings, name=name), data_dir)
    except RunError as error:
        if place:
            raise
        raise RunError(f"{error} Where it has moved, --data says where to.") from error
    if images.fingerprint != fingerprint:
        raise RunError(
            f"{name} is not the data set that the run was trained on. Expected equal "
            "images, classes and names of files, there or at another --data. Received: "
            "another fingerprint."
        )
    return images


def check_features(builder: tfds.core.DatasetBuilder, name: str) -> None:
    """Of a data set, prepared or not.

    Raises:
        RunError: it is not for classification, or its classes have odd names.
    """
    features = builder.info.features
    expected = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    if not all(
        key in features and isinstance(features[key], kind)
        for key, kind in expected.items()
    ):
        raise RunError(
            f"{name} is no data set for classification. Expected the features "
            f"image and label. Received: {', '.join(features)}."
        )
    if features["label"].num_classes:  # of some known only when they are prepared
        checks.check_class_names(features["label"].names, name)


def _image_shape(settings, shape):
    height, width, channels = shape
    if settings.image_size is not None:
        height = width = settings.image_size
    if height is None or width is None:
        raise RunError(
            f"{settings.name} does not say that its images are of one size. Expected "
            "the size to train at in the recipe field data.image_size, such as 64. "
            "Received: none."
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
            "Recipe field data.rand_augment is for images of 3 channels. "
            f"Received: {channels} in {settings.name}."
        )
    return height, width, channels


def _splits(builder, settings):
    """train, validation and test; what the data set lacks is carved from train.

    A data set with a validation and no test split is tested on the former, as
    ImageNet is.
    """
    read = functools.partial(_read, builder, limit=settings.memory_limit)
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
        train, test = train.carve(0.2)
    if not test.is_labelled():
        raise RunError(
            f"The test images of {settings.name} have no labels. Expected labels from "
            "0. Received: -1."
        )
    if validation:
        validation = read(validation)
    else:
        train, validation = train.carve(settings.validation_fraction)
    return {"train": train, "validation": validation, "test": test}


def _read(builder, split, limit):
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
