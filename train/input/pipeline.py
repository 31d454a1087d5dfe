"""A data set -> batches of images and labels: order, decode, augment, batch.

What happens in step s of a run is a function of (seed, s) alone: the order is that of
`train.input.order`, and the augmentation of an image is drawn from its place in that
order. A run that starts again at step s goes on exactly as if it had never stopped.
"""

import tensorflow as tf

from train import config
from train.input import augment, rand_augment
from train.input.dataset import ImageData
from train.input.order import Share


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
            "train.engine.pixels.settle. Received: None."
        )
    if settings.reverse_channels:
        images = tf.reverse(images, [-1])
    mean, std = (tf.constant(v, tf.float32) for v in (settings.mean, settings.std))
    return (tf.cast(images, tf.float32) / 255.0 - mean) / std
