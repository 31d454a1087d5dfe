"""python -m train.benchmark KIND: measures what attention costs.

layer    one layer on four shapes of a ResNet-50: forward and backward, and inference
network  training step and inference of networks: AN, BN, and BN with Keras' own layer;
         their parameters and multiply-adds, seconds to build them and to their first
         step, and how much training adds to the peak memory; with --backend=jax or
         torch, which do not need TensorFlow, also on a GPU
passes   where the time of a layer goes: each compiled pass alone, next to the simplest
         operations that read and write as much
size     compiled and plain operations side by side, by the size of the input
memory   what one layer keeps for the gradient, in arrays of the size of its input
scaling  how the time of a layer grows with N, H x W, C and K: exponents of a power law
input    images per second of the training pipeline, compared with bare JPEG decoding
serve    DIR...: exports in every runtime that supports their formats, AN against BN:
         percentiles of the latency, images per second, size, loading time
startup  seconds to import, to build a ResNet-20, to its first step, and to a new shape

All variants run in one process, in shuffled order, after a warm-up. Their median over
the rounds is one measurement, and `--processes` fresh processes give the median and the
range in the table. Only ratios within a process are compared: machines are shared.
"""

import os
import pathlib
import re

from absl import flags

from benchmarks import measure, summary
from train import cli, paths, tables
from train.cli import RunError, UsageError

BACKENDS = ("tensorflow", "jax", "torch")
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
NETWORKS = {  # pixels, images; --pixels and --batch override them
    "resnet50": (128, 16),
    "mobilenetv2": (128, 16),
    "densenet121": (128, 8),
    "resnet20": (32, 128),
    "resnet8": (32, 128),
    "aognet_12m": (128, 16),
    "aognet_cifar": (32, 128),
}
IN_TABLE = ["resnet50", "mobilenetv2", "densenet121", "resnet20"]
BATCH = re.compile(r"[1-9][0-9]{0,6}")  # images
PICTURES = (".png", ".svg", ".pdf")


def _picture(text, name):
    path = paths.output(text, name)
    if not path.endswith(PICTURES):
        raise UsageError(
            f"Expected {name} to end with one of {', '.join(PICTURES)}. "
            f"Received: {text!r}."
        )
    return path


def _batches(texts):
    if not texts or not all(BATCH.fullmatch(text) for text in texts):
        raise UsageError(
            f"Expected --batches such as 1,16. Received: {','.join(texts)}."
        )
    return [int(text) for text in texts]


def define_flags():
    flags.DEFINE_integer("processes", 3, "Number of fresh processes.", 1, 2**10)
    flags.DEFINE_integer("rounds", 20, "Calls of each variant in a process.", 1, 2**20)
    flags.DEFINE_integer("threads", os.cpu_count(), "Threads of the kernels.", 1, 2**10)
    flags.DEFINE_integer(
        "batch", None, "Images in a batch; 16, or the default of the network.", 2, 2**20
    )
    flags.DEFINE_integer(
        "pixels", None, "Height and width of the images, for network.", 32, 2**12
    )
    flags.DEFINE_enum(
        "backend", "tensorflow", BACKENDS, "Backend of Keras, for network."
    )
    flags.DEFINE_enum("policy", "float32", POLICIES, "Dtype policy, for network.")
    flags.DEFINE_list("networks", IN_TABLE, "Networks to time, for network.")
    flags.DEFINE_list("batches", ["1", "16"], "Images per request, for serve.")
    paths.DEFINE_path("csv", "Table to write.", paths.output)
    paths.DEFINE_path("plot", "Picture to write, .png, .svg or .pdf.", _picture)


def main(arguments):
    settings = _settings(arguments)
    kind = settings["kind"]
    once = measure.ONCE.get(kind, measure.spawn)
    runs = [once(settings) for _ in range(settings["processes"])]
    rows = summary.summarize(kind, runs)
    show = summary.show_cases if kind == "serve" else summary.show
    show(rows)
    if flags.FLAGS.csv:
        about = measure.environment(settings)
        tables.write_csv(pathlib.Path(flags.FLAGS.csv), [row | about for row in rows])
    if flags.FLAGS.plot:
        plotted = summary.overheads(rows) if kind == "serve" else rows
        if not plotted:
            raise RunError(
                "Nothing to plot. Expected exports of NAME_an and NAME_bn. "
                "Received: no such pair."
            )
        summary.plot(plotted, pathlib.Path(flags.FLAGS.plot))


def _settings(arguments):
    """Returns flags and arguments in the form that `benchmarks.process` takes."""
    kind, *directories = arguments or [None]
    if kind not in summary.REFERENCE or bool(directories) != (kind == "serve"):
        raise UsageError(
            f"Expected one of {', '.join(summary.REFERENCE)} DIR.... "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    directories = [paths.literal(directory, "DIR") for directory in directories]
    for directory in directories:
        if not os.path.isfile(os.path.join(directory, "assets", "model.json")):
            raise RunError(
                f"{directory} is not an export of train.export. Expected "
                "saved_model.pb and assets/model.json in it. Received: no "
                "assets/model.json."
            )
    for name in ("backend", "policy", "pixels") if kind != "network" else ():
        if flags.FLAGS[name].present:
            raise UsageError(
                f"--{name} applies to network only. Received: {kind} --{name}="
                f"{flags.FLAGS[name].value}."
            )
    unknown = set(flags.FLAGS.networks) - set(NETWORKS)
    if unknown or not flags.FLAGS.networks:
        raise UsageError(
            f"Expected --networks to be among {', '.join(NETWORKS)}. "
            f"Received: {', '.join(sorted(unknown)) or 'none'}."
        )
    networks = {
        name: (flags.FLAGS.pixels or pixels, flags.FLAGS.batch or images)
        for name, (pixels, images) in NETWORKS.items()
        if name in flags.FLAGS.networks
    }
    names = ("processes", "rounds", "threads", "backend", "policy")
    return {name: getattr(flags.FLAGS, name) for name in names} | {
        "kind": kind,
        "batch": flags.FLAGS.batch or 16,
        "networks": networks,
        "directories": directories,
        "batches": _batches(flags.FLAGS.batches),
    }


if __name__ == "__main__":
    cli.run(main, define_flags)
