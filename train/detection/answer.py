"""Answers of an exported detector, by a process that has only NumPy and TensorFlow.

`train.detection.serving` runs this file, not the module: PARENT/model is loaded,
answers to the images of PARENT/images.npz are written to PARENT/answers.npz.
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


def main(parent):
    signatures = tf.saved_model.load(str(parent / "model")).signatures
    answers = {}
    with np.load(parent / "images.npz") as images:
        for number, name in enumerate(images.files):
            image = images[name]
            encoded = tf.io.encode_png(image)  # unlike JPEG, without loss
            for signature, inputs in (
                ("serving_default", tf.constant(image[np.newaxis])),
                ("image_bytes", encoded[tf.newaxis]),
            ):
                for output, value in signatures[signature](inputs).items():
                    answers[f"{signature}/{number}/{output}"] = value.numpy()
    np.savez(parent / "answers.npz", **answers)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
