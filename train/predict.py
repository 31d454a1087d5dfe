"""python -m train.predict: names and scores of image files, from a run's export.

python -m train.predict runs/digits image.png...
"""

import os
import pathlib
import re

import tensorflow as tf

from train import command, formats, inspection, paths


def newest_export(path: pathlib.Path) -> pathlib.Path:
    """The SavedModel in `path`: itself, or the newest version of the run in it.

    Raises:
        RunError: there is none.
    """
    if (path / "saved_model.pb").is_file():
        return path
    versions = [
        version
        for version in path.glob("export/*")
        if re.fullmatch("[0-9]+", version.name)
        and (version / "saved_model.pb").is_file()
    ]
    if not versions:
        raise command.RunError(
            f"{path} holds no SavedModel. Expected the directory of a finished run or "
            "of an export."
        )
    return max(versions, key=lambda version: int(version.name))


def define_flags():
    """It has none."""


def main(arguments):
    if len(arguments) < 2:
        raise command.UsageError(
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
            raise command.RunError(f"Cannot read {image}: {error}.") from error
    path = newest_export(pathlib.Path(run))
    inspection.require_plain(path)
    model = formats.load("saved_model", path).model
    if "image_bytes" not in model.signatures:
        raise command.RunError(
            f"{path} takes no image files. Expected an export of a network for images "
            "of 1 or 3 channels. Received: signatures "
            f"{', '.join(sorted(model.signatures))}."
        )
    for image, content in zip(images, contents, strict=True):
        try:
            answer = model.signatures["image_bytes"](tf.constant([content]))
        except tf.errors.InvalidArgumentError as error:
            raise command.RunError(
                f"{image} is no image that this model takes. Expected JPEG or PNG. "
                f"Received: {len(content)} bytes that begin with {content[:4]!r}."
            ) from error
        names, scores = answer["classes"][0].numpy(), answer["scores"][0].numpy()
        pairs = zip(names, scores, strict=True)
        text = "  ".join(f"{name.decode()} {score:.4f}" for name, score in pairs)
        print(f"{image}  {text}")


if __name__ == "__main__":
    command.run(main, define_flags)
