"""A network -> a version directory, compared with it before it gets its place."""

import os
import pathlib
import shutil
from collections.abc import Callable

import tensorflow as tf

from train import cli, paths
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
WITH_IMAGES = ("dynamic", "int8")  # compared by first guesses on images


def export(
    exported: ImageClassifier,
    out: pathlib.Path,
    fold: bool = True,
    others: tuple[str, ...] = (),
    quantization: str | None = None,
    data_set: dataset.ImageData | None = None,
    check: Callable[[pathlib.Path], None] | None = None,
) -> pathlib.Path:
    """Exports a network to `out`/VERSION.

    The version is written aside, loaded again, compared with the Keras model and only
    then gets its place: whoever watches `out` sees whole versions or none.

    Args:
        exported: what to export.
        out: directory of the versions.
        fold: whether `fold_for_inference` removes the statistics from attentive
            normalization.
        others: formats besides the SavedModel.
        quantization: of LiteRT, one of `runtimes.QUANTIZATIONS` or `None`.
        data_set: of the network, for int8 weights: to compare first guesses.
        check: is called with the whole version, before it gets its place.

    Raises:
        UsageError: TensorFlow would read `out` as a pattern.
        RunError: the version is there already, or an export does not compute what the
            model computes.
    """
    paths.require_literal(out, "out")
    runtimes.require_packages(others)
    version = out / str(exported.version)
    _require_new(version)
    out.mkdir(parents=True, exist_ok=True)
    lock = cli.lock(out, "exports to")
    parent = out / f".writing-{exported.version}"
    aside = parent / version.name
    try:
        _require_new(version)
        for left in out.glob(".writing-*"):  # by exports that were killed
            shutil.rmtree(left, ignore_errors=True)
        network = exported.network(fold)
        saved_model.write(exported, network, aside)
        inspection.require_plain(aside)
        loaded = tf.saved_model.load(str(aside))
        signatures = loaded.signatures
        answers.require_signatures(
            signatures, exported.shape, len(exported.class_names)
        )
        compared = {"saved_model": compare.saved_model_difference(exported, signatures)}
        if others:
            plain, folded = (exported.network(f, "float32") for f in (False, fold))
            model, classifier = (
                exported.serving_model(each) for each in (plain, folded)
            )
        for name in others:
            quantized = quantization if name == "litert" else None
            samples = _samples(data_set) if quantized == "int8" else None
            runtimes.write(name, classifier, aside, quantized, samples)
            run = runtimes.load(name, aside)
            if quantized in WITH_IMAGES:
                compared[name] = compare.agreement(model, run, data_set)
            else:
                images = compare.probe_images(exported.shape)
                precision = quantized or "float32"
                answer = run(images)
                compared[name] = compare.difference(
                    name, model, images, answer, precision
                )
        is_folded = fold and exported.is_attentive
        card = {"folded": is_folded, "quantization": quantization, "compared": compared}
        saved_model.write_card(aside, exported.description() | card)
        answers.read_card(aside)
        if check:
            check(aside)
        os.rename(aside, version)
    except tf.errors.OpError as error:
        raise RunError(f"{out} takes no export: {error.message}") from error
    finally:
        shutil.rmtree(parent, ignore_errors=True)
        os.close(lock)
    return version


def _require_new(version):
    if version.exists():
        raise RunError(
            f"{version} exists already. Expected a new version, or another --out."
        )


def _samples(images):
    batches = pipeline.evaluation_batches(images, "train", SAMPLES, standardized=False)
    batch, _, weights = next(iter(batches))
    return batch.numpy()[weights.numpy() > 0]
