"""Makes batches of images and labels of a data set: order, decode, augment, batch.

The batch of step s of a run depends only on (seed, s): the order is that of
`train.input.order`, and the augmentation of an image depends on its position in that
order. A run that resumes at step s continues exactly as if it had never stopped.
"""

import tensorflow as tf

from train import config
from train.input import augment, rand_augment
from train.input.dataset import ImageData
from train.input.order import Share


def _pipeline(context, batch_size, replica_batches):
    """Returns the batches of this process, alternating between its replicas.

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
    """Returns standardized float32 images (N, H, W, C) and labels of steps start:stop.

    With mixup, also returns the labels of the images that were mixed in, (N,), and
    lambda, the weight of the image's own label, (N,).

    Args:
        data: The data set.
        seed: Seed of order and augmentation.
        batch_size: Batch size over all replicas.
        start: First step.
        stop: One past the last step.
        context: A `tf.distribute.InputContext`, to get batches per replica.
    """
    split, settings = data.splits["train"], data.settings

    def example(position, encoded, label):
        seeds = tf.random.experimental.stateless_split(
            tf.random.experimental.stateless_fold_in([seed, 1], position), 4
        )
        image = _decode(encoded, data, seeds[0])
        image = _augment(image, data, seeds[1:])
        return (image if settings.mixup else standardize(image, settings)), label

    def batches(share):
        examples = split.training(share, seed, start, stop)
        batched = examples.map(example, tf.data.AUTOTUNE).batch(
            share.batch, drop_remainder=True
        )
        if not settings.mixup:
            return batched

        def mixed(step, batch):
            turn = step * share.replicas + share.replica
            own = tf.random.experimental.stateless_fold_in([seed, 2], turn)
            images, *labels = augment.mixup(
                *batch, settings.mixup, own, settings.mixup_reversed
            )
            return standardize(images, settings), *labels

        return batched.enumerate(start).map(mixed, tf.data.AUTOTUNE)

    return _pipeline(context, batch_size, batches)


def _decode(encoded, data, seed):
    """Decodes an image, or a random part of it, to uint8."""
    channels, least = data.shape[-1], data.settings.min_crop_area
    if least < 1:
        return augment.decode_random_part(encoded, channels, least, seed)
    return augment.decode(encoded, channels)


def _augment(image, data, seeds):
    """Resizes and changes an image at random; the result is not yet standardized."""
    settings, size = data.settings, data.shape[:2]
    if settings.flip:  # here, while pixels are bytes
        image = augment.random_flip(image, seeds[1])
    if settings.min_crop_area < 1:
        image = tf.image.resize(
            image, size, settings.interpolation, antialias=settings.antialias
        )
    elif settings.image_size:
        image = augment.resize_and_crop(
            image, size, settings.shorter_side, settings.interpolation
        )
    if settings.interpolation == "bicubic":  # may exceed the range
        image = tf.clip_by_value(tf.cast(image, tf.float32), 0.0, 255.0)
    if settings.rand_augment:
        image = rand_augment.rand_augment(
            tf.saturate_cast(tf.round(tf.cast(image, tf.float32)), tf.uint8),
            settings.rand_augment,
            seeds[2],
        )
    if settings.shift:
        image = augment.random_shift(image, settings.shift, seeds[0])
    return tf.ensure_shape(image, data.shape)


def evaluation_batches(
    data: ImageData, split: str, batch_size: int, context=None, standardized=True
) -> tf.data.Dataset:
    """Returns every image of a split once: images, labels, weights of static shape.

    The last batch is padded with images of weight 0, so that weighted sums are exact
    for any batch size and number of replicas.

    Args:
        data: The data set.
        split: `"train"`, `"validation"` or `"test"`.
        batch_size: Batch size over all replicas.
        context: A `tf.distribute.InputContext`, to get batches per replica.
        standardized: Whether to standardize the images for the network. If not, they
            are uint8, as exports take them.
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
    """Decodes an image to uint8 (H, W, C), without any randomness."""
    image = augment.decode(encoded, data.shape[-1])
    if data.settings.image_size:
        image = augment.to_input_size(
            image, data.shape, data.settings.shorter_side, data.settings.interpolation
        )
    return tf.ensure_shape(image, data.shape)


def standardize(images, settings: config.Data):
    """Returns (images / 255 - mean) / std, float32; in BGR with `reverse_channels`.

    This package does not import Keras; `model_zoo.preprocessing.standardize` is the
    same, on any backend.

    Raises:
        ValueError: If mean and std are not known yet.
    """
    if settings.mean is None or settings.std is None:
        raise ValueError(
            "Expected a recipe whose data.mean and data.std are set, as by "
            "train.engine.pixels.settle. Received: None."
        )
    if settings.reverse_channels:
        images = tf.reverse(images, [-1])
    mean, std = (tf.constant(v, tf.float32) for v in (settings.mean, settings.std))
    return (tf.cast(images, tf.float32) / 255.0 - mean) / std
