"""What `train.benchmark input` measures: images per second of the input pipeline.

The two photographs that scikit-learn ships (640 x 427 pixels) are cropped, mirrored and
resized like ImageNet in training, from memory. No network processes them.
"""

import dataclasses
import functools
import pathlib

import numpy as np
import sklearn.datasets
import tensorflow as tf

from model_zoo.preprocessing import IMAGENET
from train import config
from train.input import dataset, order, pipeline

IMAGES, BATCH, SIZE = 512, 64, 224
PUBLISHED = config.Data(
    "photographs",
    image_size=SIZE,
    mean=IMAGENET.mean,
    std=IMAGENET.std,
    min_crop_area=0.08,
    flip=True,
)


def cases():
    """The training pipeline with various settings, and bare decoding.

    Yields (case, {variant: call}); a call reads `IMAGES` images.
    """
    directory = pathlib.Path(sklearn.datasets.__file__).parent / "images"
    photographs = [path.read_bytes() for path in sorted(directory.glob("*.jpg"))]
    split = order.IndexedSplit(
        tf.constant(photographs * (IMAGES // len(photographs))), np.arange(IMAGES) % 2
    )

    def batches(**changes):
        settings = dataclasses.replace(PUBLISHED, **changes)
        data = dataset.ImageData(
            (SIZE, SIZE, 3), ("china", "flower"), {"train": split}, settings
        )
        return pipeline.training_batches(data, 0, BATCH, 0, IMAGES // BATCH)

    anything = tf.data.Options()
    anything.deterministic = False
    variants = {
        "JPEG decode": _batches(split, _decode),
        "training": batches(),
        "no antialias": batches(antialias=False),
        "no antialias, any order": batches(antialias=False).with_options(anything),
        "no antialias, not repeatable": _batches(split, _stateful, shuffled=True),
        "no antialias, mixup": batches(antialias=False, mixup=0.2),
        "no antialias, RandAugment": batches(antialias=False, rand_augment=9.0),
    }
    calls = {
        name: functools.partial(_read, variant) for name, variant in variants.items()
    }
    yield f"640x427 to {SIZE} px", calls


def _read(batches):
    for _ in batches:
        pass


def _decode(encoded):
    return tf.reduce_max(tf.io.decode_jpeg(encoded, channels=3)[0])


def _batches(split, function, shuffled=False):
    images = tf.data.Dataset.from_tensor_slices(split.images)
    if shuffled:
        images = images.shuffle(IMAGES)
    images = images.map(function, tf.data.AUTOTUNE, deterministic=not shuffled)
    return images.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _stateful(encoded):
    """Does what "no antialias" does, with TensorFlow's global generator."""
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.io.extract_jpeg_shape(encoded),
        bounding_boxes=tf.zeros((1, 0, 4)),
        area_range=(PUBLISHED.min_crop_area, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], extent[:2]], axis=0)
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize(tf.image.random_flip_left_right(image), (SIZE, SIZE))
    return pipeline.standardize(image, PUBLISHED)
