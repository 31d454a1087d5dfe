"""python -m train.benchmark KIND: what attention costs, side by side.

layer    one layer on four shapes of a ResNet-50: forward and backward, and inference
network  training step and inference of networks: AN, BN, and BN by Keras' own layer;
         their parameters, and how far a training step raises the peak of memory;
         with --backend=jax or torch where TensorFlow need not be, on a GPU, too
passes   where the time of a layer goes: each compiled pass alone, beside the simplest
         operations that read and write as much
size     compiled and plain operations side by side, by the size of the input
memory   what one layer keeps for the gradient, in arrays of the size of its input
scaling  how the time of a layer grows with N, H x W, C and K: exponents of a power law
input    images a second of the training pipeline, beside bare JPEG decoding
serve    DIR...: exports in every runtime that their formats are for, AN beside BN:
         percentiles of the latency, images a second, size, time to load
startup  seconds to import, to build a ResNet-20, to its first step, and to a new shape

All variants run in one process, in shuffled order, after a warm-up; their median over
the rounds is one measurement, and `--processes` fresh processes give the median and the
range in the table. Only ratios within a process are compared: machines are shared.
"""

import datetime
import importlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from absl import flags

from train import benchmark_tables, command, paths, tables

NETWORKS = {  # pixels, images; other than --pixels and --batch
    "resnet50": (128, 16),
    "mobilenetv2": (128, 16),
    "densenet121": (128, 8),
    "resnet20": (32, 128),
}
BACKENDS = ("tensorflow", "jax", "torch")
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
NETWORK_VARIANTS = ("BN", "AN", "Keras BN")
CHAINS = ("BN", "Keras BN", "AN", "AN plain", "AN composite")
REFERENCE = {
    "layer": "Keras BN",
    "network": "BN",
    "passes": "AN",
    "size": "AN plain",
    "memory": "BN",
    "input": "JPEG decode",
    "scaling": None,
    "startup": None,
    "serve": "BN",
}
BATCH = re.compile(r"[1-9][0-9]{0,6}")  # images
PICTURES = (".png", ".svg", ".pdf")
SETTINGS = "AN_KERAS_BENCHMARK"  # of a measuring process, in its environment
# PyTorch's threads would spin for a while after each call, in the time of the next one.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
WARM_UP = 3


def measure(calls: dict, rounds: int) -> dict:
    """Median seconds of each call; in every round all of them, shuffled."""
    times = {name: [] for name in calls}
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measuring_process(settings: dict) -> list[dict]:
    """What a fresh process measures: rows of case, variant, phase and value."""
    os.environ["KERAS_BACKEND"] = settings["backend"]
    if settings["backend"] == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    if settings["kind"] == "serve":  # a server has none of our packages
        from train import benchmark_serve

        return list(benchmark_serve.rows(settings))
    importlib.import_module("keras")
    start = time.perf_counter()
    importlib.import_module("model_zoo")
    imported = time.perf_counter()
    from train import benchmark_networks

    if settings["kind"] == "device":
        return [{"device": benchmark_networks.device()}]
    if settings["kind"] == "network":
        return timed(benchmark_networks.network, settings)
    if settings["kind"] == "footprint":
        return benchmark_networks.footprint(settings)
    from train import benchmark_cases

    if settings["kind"] == "peak":
        return [benchmark_cases.peak(settings)]
    if settings["kind"] == "first":
        phases = {"import": imported - start} | benchmark_cases.startup(settings)
        common = {"case": "ResNet-20", "variant": settings["variant"], "unit": "s"}
        return [{**common, "phase": name, "value": phases[name]} for name in phases]
    if settings["kind"] == "input":
        return rates(settings)
    return timed(getattr(benchmark_cases, settings["kind"]), settings)


def timed(cases: Callable, settings: dict) -> list[dict]:
    """Milliseconds of each call of each case."""
    rows = []
    for case, calls in cases(settings):
        for (variant, phase), seconds in measure(calls, settings["rounds"]).items():
            time_of = {"variant": variant, "phase": phase, "value": seconds * 1e3}
            rows.append({**case, **time_of, "unit": "ms"})
    return rows


def rates(settings: dict) -> list[dict]:
    """Images a second of input pipelines."""
    from train import benchmark_input

    return [
        {
            "case": case,
            "variant": variant,
            "phase": "pipeline",
            "value": benchmark_input.IMAGES / seconds,
            "unit": "images/s",
        }
        for case, calls in benchmark_input.cases()
        for variant, seconds in measure(calls, settings["rounds"]).items()
    ]


def spawn(settings: dict) -> list[dict]:
    """The rows of a fresh process.

    Raises:
        RunError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "train.benchmark"],
        env={**os.environ, **QUIET_THREADS, SETTINGS: json.dumps(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise command.RunError(f"A measuring process failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def kept_arrays(settings: dict) -> list[dict]:
    """Growth of the peak of memory with the depth of a chain, in arrays of x's size."""
    few, many, rows = 4, 24, []
    for variant in CHAINS:
        shallow, deep = (
            spawn({**settings, "kind": "peak", "variant": variant, "layers": layers})[0]
            for layers in (few, many)
        )
        kept = (deep["peak"] - shallow["peak"]) / (many - few) / deep["size"]
        common = {"case": deep["case"], "phase": "training", "unit": "arrays"}
        rows.append({**common, "variant": variant, "value": kept})
    return rows


def exponents(settings: dict) -> list[dict]:
    """Slopes of log(time) over log(size), one for each axis."""
    times = {}
    for row in spawn(settings):
        key = row["case"], row["phase"], row["variant"]
        times.setdefault(key, []).append((math.log(row["at"]), math.log(row["value"])))
    return [
        {
            "case": case,
            "phase": phase,
            "variant": variant,
            "unit": "exponent",
            "value": statistics.linear_regression(*zip(*points, strict=True)).slope,
        }
        for (case, phase, variant), points in times.items()
    ]


def first_steps(settings: dict) -> list[dict]:
    """Rows of one fresh process for each variant."""
    return [
        row
        for variant in ("BN", "AN", "AN plain")
        for row in spawn({**settings, "kind": "first", "variant": variant})
    ]


def networks(settings: dict) -> list[dict]:
    """Times in one process, parameters and memory in one for each variant."""
    rows = spawn(settings)
    for name in settings["networks"]:
        for variant in NETWORK_VARIANTS:
            footprint = {"kind": "footprint", "network": name, "variant": variant}
            rows += spawn({**settings, **footprint})
    return rows


ONCE = {
    "network": networks,
    "memory": kept_arrays,
    "scaling": exponents,
    "startup": first_steps,
}


def summarize(kind: str, runs: list[list[dict]]) -> list[dict]:
    """One row for each case, phase and variant: medians and ranges over processes."""
    values, ratios, units, compared = {}, {}, {}, set()
    for rows in runs:
        reference = {
            (row["case"], row["phase"]): row["value"]
            for row in rows
            if row["variant"] == REFERENCE[kind]
        }
        compared |= set(reference)
        for row in rows:
            key = row["case"], row["phase"], row["variant"]
            units[key] = row["unit"]
            values.setdefault(key, []).append(row["value"])
            ratio = row["value"] / reference.get(key[:2], 1.0)
            ratios.setdefault(key, []).append(ratio)
    return [
        {
            "kind": kind,
            "case": case,
            "phase": phase,
            "variant": variant,
            "unit": units[key],
            "value": statistics.median(values[key]),
            "reference": REFERENCE[kind] if key[:2] in compared else "",
            "ratio": statistics.median(ratios[key]),
            "ratio_min": min(ratios[key]),
            "ratio_max": max(ratios[key]),
        }
        for key in values
        for case, phase, variant in [key]
    ]


def environment(settings: dict) -> dict:
    """What a number depends on, as columns."""
    packages = {}
    for name in ("keras", "tensorflow", "jax", "torch"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = ""
    (device,) = spawn({**settings, "kind": "device"})[0].values()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "processes": settings["processes"],
        "rounds": settings["rounds"],
        "threads": settings["threads"],
        "machine": f"{os.cpu_count()} x {platform.machine()}, {device}",
        "backend": settings["backend"],
        "policy": settings["policy"],
        "python": platform.python_version(),
        **packages,
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
    }


def _picture(text, name):
    path = paths.output(text, name)
    if not path.endswith(PICTURES):
        raise command.UsageError(
            f"Expected {name} to end with one of {', '.join(PICTURES)}. "
            f"Received: {text!r}."
        )
    return path


def _batches(texts):
    if not texts or not all(BATCH.fullmatch(text) for text in texts):
        raise command.UsageError(
            f"Expected --batches=1,16 or the like. Received: {','.join(texts)}."
        )
    return [int(text) for text in texts]


def define_flags():
    flags.DEFINE_integer("processes", 3, "Fresh processes.", 1, 2**10)
    flags.DEFINE_integer("rounds", 20, "Calls of each variant.", 1, 2**20)
    flags.DEFINE_integer("threads", os.cpu_count(), "Of the kernels.", 1, 2**10)
    flags.DEFINE_integer("batch", None, "Images; 16 for layer and memory.", 2, 2**20)
    flags.DEFINE_integer("pixels", None, "Height and width, for network.", 32, 2**12)
    flags.DEFINE_enum("backend", "tensorflow", BACKENDS, "For network.")
    flags.DEFINE_enum("policy", "float32", POLICIES, "Of types, for network.")
    flags.DEFINE_list("networks", list(NETWORKS), "For network.")
    flags.DEFINE_list("batches", ["1", "16"], "Images of a request, for serve.")
    paths.DEFINE_path("csv", "Table to write.", paths.output)
    paths.DEFINE_path("plot", "Picture to write, .png, .svg or .pdf.", _picture)


def main(arguments):
    if SETTINGS in os.environ:
        print(json.dumps(measuring_process(json.loads(os.environ[SETTINGS]))))
        return
    kind, *directories = arguments or [None]
    if kind not in REFERENCE or bool(directories) != (kind == "serve"):
        raise command.UsageError(
            f"Expected one of {', '.join(REFERENCE)} DIR.... "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    directories = [paths.literal(directory, "DIR") for directory in directories]
    for directory in directories:
        if not os.path.isfile(os.path.join(directory, "assets", "model.json")):
            raise command.RunError(
                f"{directory} is no export of train.export. Expected a saved_model.pb "
                "and assets/model.json in it. Received: not these."
            )
    if kind != "network":
        for name in ("backend", "policy", "pixels"):
            if flags.FLAGS[name].present:
                raise command.UsageError(
                    f"--{name} is for network. Received: {kind} --{name}="
                    f"{flags.FLAGS[name].value}."
                )
    names = ("processes", "rounds", "threads", "backend", "policy")
    settings = {"kind": kind} | {name: getattr(flags.FLAGS, name) for name in names}
    settings["batch"] = flags.FLAGS.batch or 16
    unknown = set(flags.FLAGS.networks) - set(NETWORKS)
    if unknown or not flags.FLAGS.networks:
        raise command.UsageError(
            f"--networks must be some of {', '.join(NETWORKS)}. "
            f"Received: {', '.join(sorted(unknown)) or 'none'}."
        )
    settings["networks"] = {
        name: (flags.FLAGS.pixels or pixels, flags.FLAGS.batch or images)
        for name, (pixels, images) in NETWORKS.items()
        if name in flags.FLAGS.networks
    }
    settings |= {"directories": directories, "batches": _batches(flags.FLAGS.batches)}
    once = ONCE.get(kind, spawn)
    rows = summarize(kind, [once(settings) for _ in range(settings["processes"])])
    shown = benchmark_tables.show_cases if kind == "serve" else benchmark_tables.show
    shown(rows)
    if flags.FLAGS.csv:
        facts = environment(settings)
        tables.write_csv(pathlib.Path(flags.FLAGS.csv), [row | facts for row in rows])
    if flags.FLAGS.plot:
        from train import benchmark_serve

        plotted = benchmark_serve.overheads(rows) if kind == "serve" else rows
        if not plotted:
            raise command.RunError(
                "Nothing to plot. Expected exports of NAME_an and NAME_bn. "
                "Received: no such pair."
            )
        benchmark_tables.plot(plotted, pathlib.Path(flags.FLAGS.plot))


if __name__ == "__main__":
    command.run(main, define_flags)
