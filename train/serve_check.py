"""python -m train.serve_check: does an export answer, without any of our code?

    python -m train.serve_check runs/digits/export/1140

Loads the SavedModel in this process, in which keras, an_keras and model_zoo cannot be
imported, sends the test images through its signatures and compares the accuracy with
the one that was measured before the export.
"""

import sys

BLOCKED = ("keras", "tf_keras", "an_keras", "model_zoo")

if __name__ == "__main__":
    for _module in BLOCKED:
        sys.modules[_module] = None  # importing it now fails

import json
import pathlib

import tensorflow as tf
from absl import flags

from train import command, config, data, splits


def check(path: pathlib.Path, data_dir: str | None = None) -> str:
    """Checks an export; returns one line about what was compared.

    Raises:
        RunError: it is no export of ours, or it answers otherwise than it should.
    """
    if not (path / "saved_model.pb").is_file():
        raise command.RunError(
            f"{path} is no SavedModel. Expected a saved_model.pb in it, as in "
            "RUN/export/STEP."
        )
    card_file = path / "assets" / "model.json"
    if not card_file.is_file():
        raise command.RunError(f"{path} is no export of train.export: no {card_file}.")
    card = json.loads(card_file.read_text())
    if not card["test"]:
        raise command.RunError(
            f"{path} was exported before its run was evaluated. Expected a test "
            "accuracy in its model.json."
        )
    signatures = tf.saved_model.load(str(path)).signatures
    images = data.load(config.from_dict(config.Data, card["data_settings"]), data_dir)
    _check_bytes(signatures, images)
    accuracy, expected = _accuracy(signatures, images), card["test"]["top1"]
    count = len(images.splits["test"])
    if abs(accuracy - expected) * count >= 0.5:
        raise command.RunError(
            f"{path} does not reproduce its accuracy. Expected: {expected:.4f} of "
            f"{count} test images. Received: {accuracy:.4f}."
        )
    return (
        f"top-1 {accuracy:.4f} on {count} test images, as trained; "
        f"without {', '.join(BLOCKED)}"
    )


def _accuracy(signatures, images):
    names = tf.constant(images.class_names)
    right = 0.0
    for batch, labels, weights in data.evaluation_batches(
        images, "test", 256, standardized=False
    ):
        answer = signatures["serving_default"](images=batch)
        correct = answer["classes"][:, 0] == tf.gather(names, labels)
        right += float(tf.reduce_sum(tf.cast(correct, tf.float32) * weights))
    return right / len(images.splits["test"])


def _check_bytes(signatures, images):
    """The same image as pixels and as bytes gets the same answer."""
    share = splits.Share(replica=0, replicas=1, batch=1)
    encoded, _, _ = next(iter(images.splits["test"].evaluation(share)))
    pixels = data.evaluation_image(images, encoded)
    answers = [
        signatures["serving_default"](images=pixels[tf.newaxis]),
        signatures["image_bytes"](image_bytes=encoded[tf.newaxis]),
    ]
    pair = [answer["probabilities"] for answer in answers]
    difference = float(tf.reduce_max(tf.abs(pair[0] - pair[1])))
    if not difference <= 1e-5:
        raise command.RunError(
            "The signatures disagree. Expected equal probabilities for an image as "
            f"pixels and as bytes. Received: a difference of {difference:.2e}."
        )


def define_flags():
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its files.")


def main(arguments):
    if len(arguments) != 1:
        raise command.UsageError(
            "Expected the directory of one SavedModel. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    print(f"served   {check(pathlib.Path(arguments[0]), flags.FLAGS.data_dir)}")


if __name__ == "__main__":
    command.run(main, define_flags)
