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

import os
import pathlib
import shutil
from collections.abc import Callable

import tensorflow as tf
from absl import flags

from train import (
    answers,
    command,
    comparison,
    config,
    data,
    fingerprint,
    formats,
    inspection,
    paths,
    saved_model,
    servable,
)
from train.command import RunError, UsageError
from train.datasets import checks
from train.servable import Servable

SAMPLES = 200  # training images that set the ranges of int8
WITH_IMAGES = ("dynamic", "int8")  # compared by first guesses on images


def export(
    exported: Servable,
    out: pathlib.Path,
    fold: bool = True,
    others: tuple[str, ...] = (),
    quantization: str | None = None,
    data_set: data.ImageData | None = None,
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
        quantization: of LiteRT, one of `formats.QUANTIZATIONS` or `None`.
        data_set: of the network, for int8 weights: to compare first guesses.
        check: is called with the whole version, before it gets its place.

    Raises:
        UsageError: TensorFlow would read `out` as a pattern.
        RunError: the version is there already, or an export does not compute what the
            model computes.
    """
    paths.require_literal(out, "out")
    formats.require_packages(others)
    version = out / str(exported.version)
    _require_new(version)
    out.mkdir(parents=True, exist_ok=True)
    lock = command.lock(out, "exports to")
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
        compared = {
            "saved_model": comparison.saved_model_difference(exported, signatures)
        }
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
                compared[name] = comparison.agreement(model, run, data_set)
            else:
                images = comparison.test_images(exported.shape)
                precision = quantized or "float32"
                answer = run(images)
                compared[name] = comparison.difference(
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
    batches = data.evaluation_batches(images, "train", SAMPLES, standardized=False)
    batch, _, weights = next(iter(batches))
    return batch.numpy()[weights.numpy() > 0]


def define_flags():
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal)
    paths.DEFINE_path(
        "out", "Where to put the version; default: RUN/export.", paths.literal
    )
    flags.DEFINE_enum(
        "checkpoint", "best", servable.CHECKPOINTS, "Which weights of the run."
    )
    flags.DEFINE_string("model", None, "A network of the zoo, instead of a run.")
    paths.DEFINE_path("weights", "Its weights: a .weights.h5 file or a tag.")
    flags.DEFINE_string("options", "{}", "Its arguments: {'input_shape': (64, 64, 3)}.")
    paths.DEFINE_path("labels", "Its class names: a file, one name a line.")
    flags.DEFINE_integer("version", 1, "Number of its export.", 0, 2**62)
    flags.DEFINE_bool("fold", True, "Folds attentive normalization for inference.")
    flags.DEFINE_list(
        "format", [], f"Besides the SavedModel: {', '.join(formats.OTHERS)}."
    )
    flags.DEFINE_enum("quantize", None, formats.QUANTIZATIONS, "Of LiteRT.")
    paths.DEFINE_data_place()


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
            data_set = data.load_again(
                facts.recipe.data, facts.fingerprint, values.data_dir, values.data
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
        for name in ("checkpoint", "data", "data_dir")
        if values[name].present and values.model
    ]
    if of_run:
        raise UsageError(f"Expected --{of_run[0]} with --workdir. Received: --model.")
    unknown = [name for name in others if name not in formats.OTHERS]
    if unknown:
        raise UsageError(
            f"Expected --format=... with some of {', '.join(formats.OTHERS)}. "
            f"Received: {', '.join(map(repr, unknown))}."
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
        options = config.literal(text)
    except ValueError as error:
        raise UsageError(f"Expected --options={{...}}. Received: {text!r}.") from error
    if not isinstance(options, dict) or not all(isinstance(k, str) for k in options):
        raise UsageError(f"Expected --options={{...}}. Received: {text!r}.")
    return options


def read_labels(path: str | None) -> tuple[str, ...]:
    """The names in a file, one a line; none without a file.

    Raises:
        UsageError: a line cannot be a name, or the file is no UTF-8.
        RunError: it is a pipe or a device.
    """
    if path is None:
        return ()
    paths.require_regular(path)
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"Expected UTF-8 in --labels={path}. Received: {error}."
        ) from error
    names = [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]
    if odd := checks.unusable_names(names):
        raise UsageError(
            f"Expected a different name on each line of --labels={path}: "
            f"{checks.USABLE_NAMES}. Received: {ascii(odd[0])}."
        )
    return tuple(names)


if __name__ == "__main__":
    command.run(main, define_flags)
