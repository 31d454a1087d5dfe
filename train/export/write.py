"""Writes a version directory and compares it with the network before publishing."""

import pathlib
from collections.abc import Callable

import tensorflow as tf

from train import files, paths
from train.cli import RunError
from train.export import (
    answers,
    compare,
    inspection,
    runtimes,
    saved_model,
)
from train.export.image_classifier import ImageClassifier
from train.input import dataset, pipeline

SAMPLES = 200  # training images that set the ranges of int8
WITH_IMAGES = ("dynamic", "int8")  # compared by first guesses on data set images


def export(
    classifier: ImageClassifier,
    out: pathlib.Path,
    fold: bool = True,
    others: tuple[str, ...] = (),
    quantization: str | None = None,
    data: dataset.ImageData | None = None,
    check: Callable[[pathlib.Path], None] | None = None,
) -> pathlib.Path:
    """Exports a network to `out`/VERSION.

    The version is written to a temporary directory, loaded, compared with the Keras
    model and only then moved to its place, so `out` never holds incomplete versions.

    Args:
        classifier: The classifier to export.
        out: Directory of the versions.
        fold: Whether `fold_for_inference` removes the statistics from attentive
            normalization.
        others: Formats in addition to the SavedModel.
        quantization: Quantization of LiteRT, one of `runtimes.QUANTIZATIONS` or `None`.
        data: Data set of the network. With int8 weights, first guesses are compared on
            its validation images; its training images set the ranges of int8.
        check: Called with the complete version before it is moved to its place.

    Returns:
        The directory of the version.

    Raises:
        UsageError: If TensorFlow would read `out` as a pattern.
        RunError: If the version already exists, or an export does not compute what the
            model computes.
    """
    paths.require_literal(out, "out")
    runtimes.require_packages(others)
    version = out / str(classifier.version)
    with files.new_version(version) as aside:
        try:
            compared = {"saved_model": _write_saved_model(classifier, fold, aside)}
            if others:
                compared |= _write_others(
                    classifier, fold, aside, others, quantization, data
                )
            is_folded = fold and classifier.is_attentive
            card = {"folded": is_folded, "quantization": quantization}
            saved_model.write_card(
                aside, classifier.description() | card | {"compared": compared}
            )
            answers.read_card(aside)
            if check:
                check(aside)
        except tf.errors.OpError as error:
            raise RunError(f"Cannot export to {out}: {error.message}") from error
    return version


def _write_saved_model(classifier, fold, path):
    """Writes the SavedModel and returns its largest difference from the model."""
    saved_model.write(classifier, classifier.network(fold), path)
    inspection.require_plain(path)
    loaded = tf.saved_model.load(str(path))
    answers.require_signatures(
        loaded.signatures, classifier.shape, len(classifier.class_names)
    )
    return compare.saved_model_difference(classifier, loaded.signatures)


def _write_others(classifier, fold, path, names, quantization, data):
    """Writes the other formats and returns the difference of each from the model."""
    plain, folded = (classifier.network(each, "float32") for each in (False, fold))
    unfolded, served = (classifier.serving_model(each) for each in (plain, folded))
    compared = {}
    for name in names:
        quantized = quantization if name == "litert" else None
        samples = _samples(data) if quantized == "int8" else None
        runtimes.write(name, served, path, quantized, samples)
        predict = runtimes.load(name, path)
        if quantized in WITH_IMAGES:
            compared[name] = compare.agreement(unfolded, predict, data)
        else:
            images = compare.probe_images(classifier.shape)
            compared[name] = compare.difference(
                name, unfolded, images, predict(images), quantized or "float32"
            )
    return compared


def _samples(data):
    batches = pipeline.evaluation_batches(data, "train", SAMPLES, standardized=False)
    batch, _, weights = next(iter(batches))
    return batch.numpy()[weights.numpy() > 0]
