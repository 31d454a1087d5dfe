"""python -m train.export: weights -> a SavedModel for serving, and other formats.

    python -m train.export --workdir=runs/digits --out=models/digits
    python -m train.export --model=resnet50_an --weights=FILE --out=models/resnet50

Of a run the best weights on the validation images, or with `--checkpoint=last` those
to go on from, or with `--checkpoint=average` their averages. Attentive normalization is
folded for inference, unless `--nofold`.

Signatures (N images, C classes, k = min(5, C)):

    serving_default  images uint8 (N, height, width, channels)   no resizing
    image_bytes      image_bytes string (N): JPEG or PNG; decoded, resized and cropped
                     as in evaluation
        -> probabilities float32 (N, C), classes string (N, k), scores float32 (N, k)
    features         images -> features float32 (N, D), what the classifier sees

`--format=litert,onnx,openvino` writes `model.tflite`, `model.onnx` and `model.xml` with
`model.bin` besides, each images -> probabilities in float32. `--quantize` is for the
first: `float16` weights, `dynamic` (int8 weights) or `int8` (activations too).
"""

import ast
import os
import pathlib
import shutil
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from train import (
    command,
    data,
    fingerprint,
    formats,
    saved_model,
    servable,
    serve_check,
)
from train.command import RunError, UsageError
from train.servable import Servable

# Of a probability, between the Keras model and its export, by the model's precision;
# and of the largest change of a probability from image to image.
TOLERANCES = {
    "float64": 1e-4,
    "float32": 1e-4,
    "float16": 1e-2,
    "mixed_float16": 5e-3,
    "mixed_bfloat16": 6e-2,
}
OF_CHANGE, LEAST = 0.1, 1e-7
SAMPLES = 200  # training images that set the ranges of int8
AGREEMENT = 0.9  # share of validation images with an equal first guess
WITH_IMAGES = ("dynamic", "int8")  # quantizations that are compared by it


def export(
    exported: Servable,
    out: pathlib.Path,
    fold: bool = True,
    others: tuple[str, ...] = (),
    quantization: str | None = None,
    data_set: data.ImageData | None = None,
) -> pathlib.Path:
    """Exports a network to `out`/VERSION.

    The version is written aside, loaded again, compared with the Keras model and only
    then gets its number: whoever watches `out` sees whole versions or none.

    Args:
        exported: what to export.
        out: directory of the versions.
        fold: whether `fold_for_inference` removes the statistics from attentive
            normalization.
        others: formats besides the SavedModel.
        quantization: of LiteRT, one of `formats.QUANTIZATIONS` or `None`.
        data_set: of the network, for int8 weights: to compare first guesses.

    Raises:
        RunError: the version is there already, or an export does not compute what the
            model computes.
    """
    formats.require_packages(others)
    version = out / str(exported.version)
    _require_new(version)
    out.mkdir(parents=True, exist_ok=True)
    lock = command.lock(out, "exports to")
    aside = out / f".writing-{exported.version}"
    try:
        _require_new(version)
        for left in out.glob(".writing-*"):  # by exports that were killed
            shutil.rmtree(left, ignore_errors=True)
        network = exported.network(fold)
        saved_model.write(exported, network, aside)
        serve_check.require_plain(aside)
        signatures = tf.saved_model.load(str(aside)).signatures
        serve_check.require_signatures(
            signatures, exported.shape, len(exported.class_names)
        )
        compared = {"saved_model": compare_saved_model(exported, aside)}
        if others:
            plain, folded = (exported.network(f, "float32") for f in (False, fold))
            model, classifier = (
                servable.classifier(exported, each) for each in (plain, folded)
            )
        for name in others:
            quantized = quantization if name == "litert" else None
            samples = _samples(data_set) if quantized == "int8" else None
            formats.write(name, classifier, aside, quantized, samples)
            run = formats.load(name, aside)
            if quantized in WITH_IMAGES:
                compared[name] = agreement(model, run, data_set)
            else:
                images = test_images(exported.shape)
                precision = quantized or "float32"
                answer = run(images)
                compared[name] = difference(name, model, images, answer, precision)
        is_folded = fold and exported.is_attentive
        card = {"folded": is_folded, "quantization": quantization, "compared": compared}
        saved_model.write_card(aside, exported.description() | card)
        os.rename(aside, version)
    except tf.errors.OpError as error:
        raise RunError(f"{out} takes no export: {error.message}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)
    return version


def _require_new(version):
    if version.exists():
        raise RunError(
            f"{version} exists already. Expected a new version, or another --out."
        )


def compare_saved_model(exported: Servable, path: pathlib.Path) -> float:
    """Compares a SavedModel with the model, through pixels and through PNG.

    Returns:
        The largest difference of a probability.

    Raises:
        RunError: they differ.
    """
    signatures = tf.saved_model.load(str(path)).signatures
    classifier = servable.classifier(exported, exported.model)
    images = test_images(exported.shape)
    answer = signatures["serving_default"](images=tf.constant(images))
    largest = difference(
        "serving_default", classifier, images, answer, exported.precision
    )
    if "image_bytes" in signatures:
        encoded = [tf.io.encode_png(image) for image in images]
        fitted = np.stack([exported.fit(each) for each in encoded])
        answer = signatures["image_bytes"](image_bytes=tf.stack(encoded))
        through_png = difference(
            "image_bytes", classifier, fitted, answer, exported.precision
        )
        largest = max(largest, through_png)
    return largest


def difference(
    name: str,
    classifier: keras.Model,
    images: np.ndarray,
    answer: dict | np.ndarray,
    precision: str,
) -> float:
    """The largest difference of a probability between an export and the model.

    Args:
        name: of the export or signature, for the message.
        classifier: the model.
        images: uint8 (N, H, W, C).
        answer: of the export to these images, or its probabilities.
        precision: of the model, or of the export if that is lower.

    Raises:
        RunError: it is larger than rounding explains.
    """
    expected = np.asarray(classifier(images, training=False)["probabilities"])
    received = answer["probabilities"] if isinstance(answer, dict) else answer
    largest = float(np.abs(np.asarray(received) - expected).max())
    allowed = limit(expected, precision)
    if not largest <= allowed:
        raise RunError(
            f"The export differs from the model. Expected probabilities within "
            f"{allowed:.1e} in {name}. Received: a difference of {largest:.2e}."
        )
    return largest


def limit(expected: np.ndarray, precision: str) -> float:
    """What rounding may change of probabilities (N, classes) of different images."""
    change = float(np.ptp(expected, axis=0).max())
    return min(TOLERANCES[precision], max(OF_CHANGE * change, LEAST))


def test_images(shape: tuple[int, int, int]) -> np.ndarray:
    """Noise, fine and coarse, and a grey image; uint8 (3, H, W, C)."""
    rng = np.random.default_rng(0)
    fine, coarse = (rng.integers(0, 256, size) for size in (shape, (4, 4, shape[-1])))
    smooth = np.asarray(tf.image.resize(coarse, shape[:2]))
    return np.stack([fine, smooth, np.full(shape, 128)]).astype(np.uint8)


def agreement(
    classifier: keras.Model, run: Callable, images: data.ImageData
) -> dict[str, float]:
    """How often an export has the model's first guess, on the validation images.

    Raises:
        RunError: too seldom.
    """
    equal = count = 0
    for batch, _, weights in data.evaluation_batches(
        images, "validation", 64, standardized=False
    ):
        batch = batch.numpy()[weights.numpy() > 0]
        expected = np.asarray(classifier(batch, training=False)["probabilities"])
        equal += int((expected.argmax(-1) == run(batch).argmax(-1)).sum())
        count += len(batch)
    if equal < AGREEMENT * count:
        raise RunError(
            "The quantized export differs from the model. Expected the same first "
            f"guess for {AGREEMENT:.0%} of {count} validation images. "
            f"Received: {equal}."
        )
    return {"images": count, "same_first_guess": equal / count}


def _samples(images):
    batches = data.evaluation_batches(images, "train", SAMPLES, standardized=False)
    batch, _, weights = next(iter(batches))
    return batch.numpy()[weights.numpy() > 0]


def define_flags():
    flags.DEFINE_string("workdir", None, "Directory of the run.")
    flags.DEFINE_string("out", None, "Where to put the version; default: RUN/export.")
    flags.DEFINE_enum(
        "checkpoint", "best", servable.CHECKPOINTS, "Which weights of the run."
    )
    flags.DEFINE_string("model", None, "A network of the zoo, instead of a run.")
    flags.DEFINE_string("weights", None, "Its weights: a .weights.h5 file or a tag.")
    flags.DEFINE_string("options", "{}", "Its arguments: {'input_shape': (64, 64, 3)}.")
    flags.DEFINE_string("labels", None, "Its class names: a file, one name a line.")
    flags.DEFINE_integer("version", 1, "Number of its export.", 0, 2**62)
    flags.DEFINE_bool("fold", True, "Folds attentive normalization for inference.")
    flags.DEFINE_list(
        "format", [], f"Besides the SavedModel: {', '.join(formats.OTHERS)}."
    )
    flags.DEFINE_enum("quantize", None, formats.QUANTIZATIONS, "Of LiteRT.")
    flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its files.")


def main(arguments):
    command.no_arguments(arguments)
    values = flags.FLAGS
    others = tuple(dict.fromkeys(values.format))
    _check_flags(values, others)
    data_set, out = None, pathlib.Path(values.out) if values.out else None
    if values.model:
        exported = servable.of_network(
            values.model,
            values.weights,
            _options(values.options),
            read_labels(values.labels),
            values.version,
        )
    else:
        workdir = pathlib.Path(values.workdir)
        exported = servable.of_run(workdir, values.checkpoint)
        out = out or workdir / "export"
        if values.quantize in WITH_IMAGES:
            facts = fingerprint.read_facts(workdir)
            data_set = data.load(facts.recipe.data, values.data_dir)
            if data_set.fingerprint != facts.fingerprint:
                raise RunError(
                    f"{facts.recipe.data.name} holds other images than the run was "
                    "trained on. Expected the same. Received: another fingerprint."
                )
    version = export(exported, out, values.fold, others, values.quantize, data_set)
    print(f"SavedModel in {version}")
    for name in others:
        print(f"{name:<10} in {version / formats.FILES[name]}")


def _check_flags(values, others):
    network = {"model", "weights", "out"}
    given = {name for name in network | {"workdir"} if values[name].value}
    if not (given <= {"workdir", "out"} and "workdir" in given or given == network):
        raise UsageError(
            "Expected --workdir=RUN, or --model=NAME --weights=FILE --out=DIR. "
            f"Received: {', '.join(f'--{name}' for name in sorted(given)) or 'none'}."
        )
    of_network = [
        name
        for name in ("options", "labels", "version")
        if values[name].present and not values.model
    ]
    if of_network:
        raise UsageError(
            f"Expected --{of_network[0]} with --model only. Received: --workdir."
        )
    of_run = [
        name
        for name in ("checkpoint", "data_dir")
        if values[name].present and values.model
    ]
    if of_run:
        raise UsageError(f"Expected --{of_run[0]} with --workdir. Received: --model.")
    unknown = [name for name in others if name not in formats.OTHERS]
    if unknown:
        raise UsageError(
            f"Expected --format=... with some of {', '.join(formats.OTHERS)}. "
            f"Received: {', '.join(unknown)}."
        )
    if values.quantize and "litert" not in others:
        raise UsageError(
            f"Expected --quantize with --format=litert. Received: "
            f"--format={','.join(others)}."
        )
    if values.quantize in WITH_IMAGES and values.model:
        raise UsageError(
            f"Expected --quantize={values.quantize} with --workdir, for its images. "
            "Received: --model."
        )


def _options(text):
    try:
        options = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"Expected --options={{...}}. Received: {text!r}.") from error
    if not isinstance(options, dict) or not all(isinstance(k, str) for k in options):
        raise UsageError(f"Expected --options={{...}}. Received: {text!r}.")
    return options


def read_labels(path: str | None) -> tuple[str, ...]:
    """The names in a file, one a line; none without a file.

    Raises:
        UsageError: a line is empty or there twice, or the file is no UTF-8.
    """
    if path is None:
        return ()
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Expected UTF-8 in --labels={path}. Received: {error}."
        ) from error
    names = [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]
    odd = [name for name in names if not name.strip() or names.count(name) > 1]
    if odd:
        raise UsageError(
            f"Expected a different name on each line of --labels={path}. "
            f"Received: {odd[0]!r}."
        )
    return tuple(names)


if __name__ == "__main__":
    command.run(main, define_flags)
