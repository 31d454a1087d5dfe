"""The one input path: a tensorflow-datasets builder -> batches of images and labels.

What happens in step s of a run is a function of (seed, s) alone: the order is that of
`train.splits`, and the augmentation of an image is drawn from its place in that order.
A run that starts again at step s goes on exactly as if it had never stopped.
"""

import dataclasses
import functools
import hashlib

import tensorflow as tf
import tensorflow_datasets as tfds

from train import augment, config, datasets, rand_augment
from train.command import RunError
from train.datasets import checks, folder
from train.splits import VALIDATION_NAMES, Shards, Share, Split, carve


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
    splits: dict[str, Split | Shards]
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
    builder = datasets.create_builder(settings, data_dir)
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
    train = splits["train"]
    labels = range(len(class_names))
    missing = set(labels) - set(train.labels if isinstance(train, Split) else labels)
    if missing:
        names = ", ".join(class_names[label] for label in sorted(missing)[:5])
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
        train, test = _carve(train, 0.2)
    if _unlabelled(test):
        raise RunError(
            f"The test images of {settings.name} have no labels. Expected labels from "
            "0. Received: -1."
        )
    if validation:
        validation = read(validation)
    else:
        train, validation = _carve(train, settings.validation_fraction)
    return {"train": train, "validation": validation, "test": test}


def _carve(split, fraction):
    return (carve if isinstance(split, Split) else Shards.carve)(split, fraction)


def _unlabelled(split):
    if isinstance(split, Split):
        return (split.labels < 0).any()
    _, label, _ = next(iter(split.evaluation(Share(0, 1, 1))))
    return int(label) < 0


def _read(builder, split, limit):
    if isinstance(builder, folder.Folder):
        paths, labels = builder.files[split]
        digests = folder.check_images(builder.data_dir, paths)
        return Split(tf.constant(paths), labels, digests)
    info = builder.info.splits[split]
    if info.num_bytes > limit * 2**30:
        return _open_shards(builder, info)
    dataset = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    dataset = dataset.map(lambda example: (example["image"], example["label"]))
    images, labels = dataset.batch(info.num_examples).get_single_element()
    return Split(images, labels.numpy())


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
    return Shards(name, builder.info.features, paths, lengths)


def _pipeline(context, batch_size, replica_batches):
    """The batches of this process: those of its replicas in turns.

    `replica_batches` makes the batches of a `Share`.
    """
    pipelines = context.num_input_pipelines if context else 1
    replicas = context.num_replicas_in_sync if context else 1
    local = replicas // pipelines
    first = local * (context.input_pipeline_id if context else 0)
    batch = batch_size // replicas
    batches = [
        replica_batches(Share(replica, replicas, batch))
        for replica in range(first, first + local)
    ]
    if local == 1:
        return batches[0].prefetch(tf.data.AUTOTUNE)
    turns = tf.data.Dataset.range(local).repeat()
    return tf.data.Dataset.choose_from_datasets(batches, turns).prefetch(
        tf.data.AUTOTUNE
    )


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

    def example(position, encoded, label):
        seeds = tf.random.experimental.stateless_split(
            tf.random.experimental.stateless_fold_in([seed, 1], position), 4
        )
        size, channels = data.shape[:2], data.shape[-1]
        if settings.min_crop_area < 1:
            image = augment.decode_random_part(
                encoded, channels, settings.min_crop_area, seeds[0]
            )
        else:
            image = augment.decode(encoded, channels)
        if settings.flip:  # here, where a pixel is a byte
            image = augment.random_flip(image, seeds[2])
        if settings.min_crop_area < 1:
            image = tf.image.resize(image, size, antialias=settings.antialias)
        elif settings.image_size:
            image = augment.resize_and_crop(image, size)
        if settings.rand_augment:
            image = rand_augment.rand_augment(
                tf.saturate_cast(tf.round(tf.cast(image, tf.float32)), tf.uint8),
                settings.rand_augment,
                seeds[3],
            )
        if settings.shift:
            image = augment.random_shift(image, settings.shift, seeds[1])
        image = tf.ensure_shape(image, data.shape)
        return standardize(image, settings), label

    def batches(share):
        examples = split.training(share, seed, start, stop)
        batches = examples.map(example, tf.data.AUTOTUNE).batch(
            share.batch, drop_remainder=True
        )
        if not settings.mixup:
            return batches
        return batches.enumerate(start).map(
            lambda step, batch: augment.mixup(
                *batch,
                settings.mixup,
                tf.random.experimental.stateless_fold_in(
                    [seed, 2], step * share.replicas + share.replica
                ),
            ),
            tf.data.AUTOTUNE,
        )

    return _pipeline(context, batch_size, batches)


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

    def example(encoded, label, weight):
        image = evaluation_image(data, encoded)
        if standardized:
            image = standardize(image, data.settings)
        return image, label, weight

    def batches(share):
        examples = data.splits[split].evaluation(share).map(example, tf.data.AUTOTUNE)
        return examples.batch(share.batch, drop_remainder=True)

    return _pipeline(context, batch_size, batches)


def evaluation_image(data: ImageData, encoded):
    """An encoded image as uint8 (H, W, C), without any randomness."""
    image = augment.decode(encoded, data.shape[-1])
    if data.settings.image_size:
        image = augment.fit(image, data.shape)
    return tf.ensure_shape(image, data.shape)


def standardize(images, settings: config.Data):
    """(images / 255 - mean) / std, float32; of BGR with `reverse_channels`.

    Raises:
        ValueError: mean and std are not known yet.
    """
    if settings.mean is None or settings.std is None:
        raise ValueError(
            "Expected a recipe whose data.mean and data.std are settled, as by "
            "train.pixels.settle. Received: None."
        )
    if settings.reverse_channels:
        images = tf.reverse(images, [-1])
    mean, std = (tf.constant(v, tf.float32) for v in (settings.mean, settings.std))
    return (tf.cast(images, tf.float32) / 255.0 - mean) / std
