"""Answers of an exported detector, by a process that has only NumPy and TensorFlow.

`train.detection.serving` runs this file, not the module: the export in PATH is loaded,
its answers to the batches of images.npz beside it are written to answers.npz there.
"""

import os
import sys

BLOCKED = ("keras", "tf_keras", "official", "an_keras", "model_zoo", "train")

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for _module in BLOCKED:
        sys.modules[_module] = None  # importing it now fails

import pathlib

import numpy as np
import tensorflow as tf


def main(path):
    signatures = tf.saved_model.load(str(path)).signatures
    answers = {}
    with np.load(path.with_name("images.npz")) as images:
        for number, name in enumerate(images.files):
            batch = images[name]
            encoded = [*map(tf.io.encode_png, batch)]  # unlike JPEG, without loss
            for signature, inputs in (
                ("serving_default", tf.constant(batch)),
                ("image_bytes", tf.stack(encoded)),
            ):
                for output, value in signatures[signature](inputs).items():
                    answers[f"{signature}/{number}/{output}"] = value.numpy()
    np.savez(path.with_name("answers.npz"), **answers)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
