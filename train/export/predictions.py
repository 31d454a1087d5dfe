"""The answers of an export to image files."""

import itertools
import pathlib

import tensorflow as tf

from train import tables
from train.cli import RunError
from train.export import inspection, runtimes

Guesses = list[tuple[str, float]]  # names and scores, the most probable class first


def load(export: pathlib.Path):
    """Loads the SavedModel of an export, after inspecting its files.

    Raises:
        RunError: If it is damaged, may do more than compute, or takes no image files.
    """
    inspection.require_plain(export)
    model = runtimes.load("saved_model", export).model
    signature = model.signatures.get("image_bytes")
    if not signature or "classes" not in signature.structured_outputs:
        raise RunError(
            f"{export} does not classify image files. Expected an export of a network "
            "for images with 1 or 3 channels. Received: signatures "
            f"{', '.join(sorted(model.signatures))}."
        )
    return model


def predict(model, image: str) -> Guesses:
    """Returns the names of the most probable classes of an image with their scores.

    Raises:
        RunError: If the model does not accept the image.
    """
    content = pathlib.Path(image).read_bytes()
    try:
        answer = model.signatures["image_bytes"](tf.constant([content]))
    except tf.errors.InvalidArgumentError as error:
        raise RunError(
            f"{image} is not an image that this model accepts. Expected JPEG or "
            f"PNG. Received: {len(content)} bytes that start with {content[:4]!r}."
        ) from error
    names = [name.decode() for name in answer["classes"][0].numpy()]
    return list(zip(names, answer["scores"][0].numpy().tolist(), strict=True))


def lines(answers: list[tuple[str, Guesses]]) -> list[str]:
    """Returns a line for each image: its path, and names and scores in columns."""
    rows = []
    for image, guesses in answers:
        cells = ((name, f"{score:.4f}") for name, score in guesses)
        rows.append((image, *itertools.chain(*cells)))
    return tables.aligned(rows)


def write_csv(path: pathlib.Path, answers: list[tuple[str, Guesses]]) -> None:
    """Writes a row for each image: file, class, score, class 2, score 2, ..."""
    rows = []
    for image, guesses in answers:
        row = {"file": image}
        for number, (name, score) in enumerate(guesses, 1):
            place = f" {number}" if number > 1 else ""
            row |= {f"class{place}": name, f"score{place}": score}
        rows.append(row)
    tables.write_csv(path, rows)


def write_json(path: pathlib.Path, answers: list[tuple[str, Guesses]]) -> None:
    """Writes an object for each image: its file, and its classes with their scores."""
    tables.write_json(
        path,
        [
            {"file": image, "classes": [{"class": n, "score": s} for n, s in guesses]}
            for image, guesses in answers
        ],
    )
