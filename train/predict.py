"""python -m train.predict: names and scores of image files, from a run's export.

python -m train.predict runs/digits image.png...
"""

import os
import pathlib

import tensorflow as tf

from train import cli, paths
from train.export import inspection, runtimes


def define_flags():
    """It has none."""


def main(arguments):
    if len(arguments) < 2:
        raise cli.UsageError(
            "Expected a run and at least one image. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    run, *images = arguments
    run, contents = paths.literal(run, "RUN"), []
    for image in images:
        file = pathlib.Path(os.path.expanduser(image))
        paths.require_regular(file)
        try:
            contents.append(file.read_bytes())
        except OSError as error:
            raise cli.RunError(f"Cannot read {image}: {error}.") from error
    path = runtimes.newest_export(pathlib.Path(run))
    inspection.require_plain(path)
    model = runtimes.load("saved_model", path).model
    if "image_bytes" not in model.signatures:
        raise cli.RunError(
            f"{path} takes no image files. Expected an export of a network for images "
            "of 1 or 3 channels. Received: signatures "
            f"{', '.join(sorted(model.signatures))}."
        )
    for image, content in zip(images, contents, strict=True):
        try:
            answer = model.signatures["image_bytes"](tf.constant([content]))
        except tf.errors.InvalidArgumentError as error:
            raise cli.RunError(
                f"{image} is no image that this model takes. Expected JPEG or PNG. "
                f"Received: {len(content)} bytes that begin with {content[:4]!r}."
            ) from error
        names, scores = answer["classes"][0].numpy(), answer["scores"][0].numpy()
        pairs = zip(names, scores, strict=True)
        text = "  ".join(f"{name.decode()} {score:.4f}" for name, score in pairs)
        print(f"{image}  {text}")


if __name__ == "__main__":
    cli.run(main, define_flags)
