"""The answers of an export to image files."""

import os
import pathlib

import tensorflow as tf

from train import paths
from train.cli import RunError
from train.export import inspection, runtimes


def read(image: str) -> bytes:
    """Reads an image file.

    Raises:
        RunError: If it cannot be read, or is not a regular file.
    """
    file = pathlib.Path(os.path.expanduser(image))
    paths.require_regular(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunError(f"Cannot read {image}: {error}.") from error


def load(export: pathlib.Path):
    """Loads the SavedModel of an export, after inspecting its files.

    Raises:
        RunError: If it is damaged, may do more than compute, or takes no image files.
    """
    inspection.require_plain(export)
    model = runtimes.load("saved_model", export).model
    if "image_bytes" not in model.signatures:
        raise RunError(
            f"{export} does not accept image files. Expected an export of a network "
            "for images with 1 or 3 channels. Received: signatures "
            f"{', '.join(sorted(model.signatures))}."
        )
    return model


def predict(model, image: str, content: bytes) -> list[tuple[str, float]]:
    """Returns the names of the most probable classes with their scores.

    Raises:
        RunError: If the model does not accept the image; `image` names it.
    """
    try:
        answer = model.signatures["image_bytes"](tf.constant([content]))
    except tf.errors.InvalidArgumentError as error:
        raise RunError(
            f"{image} is not an image that this model accepts. Expected JPEG or "
            f"PNG. Received: {len(content)} bytes that start with {content[:4]!r}."
        ) from error
    names = [name.decode() for name in answer["classes"][0].numpy()]
    return list(zip(names, answer["scores"][0].numpy().tolist(), strict=True))
