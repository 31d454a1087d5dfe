"""Writes data sets of images: folders and idx files."""

import gzip
import struct

import numpy as np
import tensorflow as tf


def write_images(directory, count=12, size=(12, 10), classes=("cat", "dog")):
    """Writes random images of different sizes, half of them JPEG."""
    rng = np.random.default_rng(0)
    for name in classes:
        (directory / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shape = (size[0] + i, size[1], 3)
            image = tf.constant(rng.integers(0, 256, shape, dtype=np.uint8))
            if i % 2:
                (directory / name / f"{i}.png").write_bytes(
                    tf.io.encode_png(image).numpy()
                )
            else:
                (directory / name / f"{i}.jpg").write_bytes(
                    tf.io.encode_jpeg(image).numpy()
                )


def write_idx(directory, images, labels, compress=False):
    """Writes the four idx files, with the same images for training and test."""
    directory.mkdir(exist_ok=True)
    for prefix in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim])
            header += struct.pack(f">{array.ndim}I", *array.shape)
            content = header + array.astype(np.uint8).tobytes()
            if compress:
                path = directory / f"{prefix}-{kind}-ubyte.gz"
                path.write_bytes(gzip.compress(content))
            else:
                (directory / f"{prefix}-{kind}-ubyte").write_bytes(content)
