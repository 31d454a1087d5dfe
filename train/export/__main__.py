"""python -m train.export: weights -> a SavedModel for serving, and other formats.

    python -m train.export --workdir=runs/digits --out=models/digits
    python -m train.export --model=resnet50_an --weights=FILE --out=models/resnet50

For a run, exports the weights that are best on the validation images, with
`--checkpoint=last` those of the last checkpoint, or with `--checkpoint=average` their
averages. Attentive normalization is folded for inference unless `--nofold` is given.

Signatures (N images, C classes, k = min(5, C)):

    serving_default  images uint8 (N, height, width, channels)   no resizing
    image_bytes      image_bytes string (N): JPEG or PNG; decoded, resized and cropped
                     as in evaluation
        -> probabilities float32 (N, C), classes string (N, k), scores float32 (N, k)
    features         images -> features float32 (N, D), the classifier's input

`--format=litert,onnx,openvino` also writes `model.tflite`, `model.onnx` and `model.xml`
with `model.bin`, each images -> probabilities in float32. `--quantize` applies to
LiteRT: `float16` weights, `dynamic` (int8 weights) or `int8` (activations too).
"""

import pathlib

from absl import flags

from train import cli, paths
from train.cli import UsageError
from train.engine import run_directory
from train.export import answers, image_classifier, network_flags, runtimes, write


def define_flags():
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal)
    paths.DEFINE_path(
        "out", "Directory of the versions; default: RUN/export.", paths.literal
    )
    flags.DEFINE_enum(
        "checkpoint", "best", image_classifier.CHECKPOINTS, "Weights of the run."
    )
    network_flags.DEFINE_network()
    flags.DEFINE_integer("version", 1, "Version of the export of --model.", 0, 2**62)
    flags.DEFINE_bool("fold", True, "Folds attentive normalization for inference.")
    flags.DEFINE_list("format", [], f"Formats to add: {', '.join(runtimes.OTHERS)}.")
    flags.DEFINE_enum(
        "quantize", None, runtimes.QUANTIZATIONS, "Quantization of LiteRT."
    )
    paths.DEFINE_data_place()


def main(arguments):
    cli.no_arguments(arguments)
    values = flags.FLAGS
    others = tuple(dict.fromkeys(values.format))
    _check_flags(values, others)
    data, out = None, pathlib.Path(values.out) if values.out else None
    if values.model:
        classifier = network_flags.classifier(values.version)
    else:
        workdir = pathlib.Path(values.workdir)
        classifier = image_classifier.of_run(workdir, values.checkpoint)
        out = out or workdir / "export"
        if values.quantize in write.WITH_IMAGES:
            spec = run_directory.read_spec(workdir)
            data = spec.load_data(values.data_dir, values.data)
    version = write.export(classifier, out, values.fold, others, values.quantize, data)
    print(f"SavedModel in {version}")
    compared = answers.read_card(version)["compared"]
    for name in others:
        file = version / runtimes.FILES[name]
        print(f"{name:<10} in {file}, {_described(compared[name])}")


def _described(compared):
    if isinstance(compared, dict):
        share, images = compared["same_first_guess"], compared["images"]
        return f"same first guess as the model for {share:.1%} of {images} images"
    return f"probabilities within {compared:.1e} of the model"


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
    unknown = [name for name in others if name not in runtimes.OTHERS]
    if unknown:
        raise UsageError(
            f"Expected --format=... with some of {', '.join(runtimes.OTHERS)}. "
            f"Received: {', '.join(map(repr, unknown))}."
        )
    if values.quantize and "litert" not in others:
        raise UsageError(
            f"Expected --quantize with --format=litert. Received: "
            f"--format={','.join(others)}."
        )
    if values.quantize in write.WITH_IMAGES and values.model:
        raise UsageError(
            f"Expected --quantize={values.quantize} with --workdir, whose images it "
            "needs. Received: --model."
        )


if __name__ == "__main__":
    cli.run(main, define_flags)
