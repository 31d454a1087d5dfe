"""Image files in folders: DIR/train/CLASS/*.jpg, and DIR/test/... if there is one."""

import hashlib
import os

import tensorflow as tf
import tensorflow_datasets as tfds

from train.command import RunError


def open_folder(directory: str) -> tfds.ImageFolder:
    """The builder of a folder of images.

    Raises:
        RunError: a split, or the whole folder, holds no images.
    """
    builder = tfds.ImageFolder(directory)
    for split, info in builder.info.splits.items():
        if not info.num_examples:
            raise RunError(
                f"{directory} has a split without images. Expected .jpg, .jpeg or .png "
                f"files in {directory}/{split}/CLASS/. Received: none."
            )
    if not builder.info.splits:
        content = ", ".join(sorted(os.listdir(directory))[:5]) or "an empty directory"
        raise RunError(
            f"{directory} holds no images. Expected .jpg, .jpeg or .png files in "
            f"{directory}/train/CLASS/. Received: {content}."
        )
    return builder


def check_images(directory: str, split: str, encoded: tf.data.Dataset) -> bytes:
    """Decodes every image of a split once, to name the damaged ones before training.

    Args:
        directory: of the data set, for the message.
        split: name of the split.
        encoded: its examples, with the features `image` still encoded.

    Returns:
        A digest of the contents of all files.

    Raises:
        RunError: an image cannot be decoded.
    """

    def decode(example):
        image = tf.io.decode_image(example["image"], 3, expand_animations=False)
        return example["image/filename"], tf.size(image)

    decodable = encoded.map(decode, tf.data.AUTOTUNE).ignore_errors()
    good = {path for path, _ in decodable.as_numpy_iterator()}
    digests = {
        example["image/filename"]: hashlib.sha256(example["image"]).digest()
        for example in encoded.as_numpy_iterator()
    }
    bad = sorted({*digests} - good)
    if bad:
        raise RunError(
            f"{directory} has images that cannot be read. Expected JPEG or PNG. "
            f"Received: {len(bad)} damaged in {split}: "
            f"{', '.join(path.decode() for path in bad[:5])}."
        )
    return hashlib.sha256(b"".join(digests[path] for path in sorted(digests))).digest()
