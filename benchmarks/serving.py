"""What `train.benchmark serve` measures: exports in every runtime, AN against BN.

Each export is loaded into the runtimes whose formats it holds. A call sends one batch
of images and waits for the probabilities. Two exports whose networks are called NAME_an
and NAME_bn form a pair: their latencies are measured alternately and compared.
"""

import functools
import pathlib
import time
from collections.abc import Iterable

import numpy as np

from benchmarks import timing
from train.cli import RunError
from train.export import answers, inspection, runtimes

PERCENTILES = (50, 90, 99)


def rows(settings: dict) -> Iterable[dict]:
    """Yields rows of case, variant, phase, value and unit, pair after pair.

    Args:
        settings: The `directories` of exports, `batches`, `rounds` and `threads`.
    """
    pairs = {}
    for directory in map(pathlib.Path, settings["directories"]):
        inspection.require_plain(directory)
        card = answers.read_card(directory)
        network, variant = split_variant(card["model"])
        if card["quantization"]:
            variant += f" {card['quantization']}"
        key = network, tuple(card["preprocessing"]["shape"]), card["precision"]
        if variant in pairs.setdefault(key, {}):
            raise RunError(
                f"Two exports are {card['model']} of the same size and precision. "
                f"Expected one. Received: {pairs[key][variant]}, {directory}."
            )
        pairs[key][variant] = directory
    for (network, shape, precision), variants in pairs.items():
        if precision != "float32":
            network = f"{network} {precision}"
        for runtime in runtimes.FILES:
            present = {
                variant: directory
                for variant, directory in variants.items()
                if (directory / runtimes.FILES[runtime]).is_file()
            }
            yield from _measure(network, shape, runtime, present, settings)


def split_variant(name: str) -> tuple[str, str]:
    """Splits `"resnet50_an"` into `"resnet50"` and `"AN"`."""
    network, _, kind = name.rpartition("_")
    return (network, kind.upper()) if kind in ("an", "bn") else (name, "")


def _measure(network, shape, runtime, variants, settings):
    runs, size = {}, "x".join(map(str, shape[:2]))
    for variant, directory in variants.items():
        about = {"case": f"{network} {size}, {runtime}", "variant": variant}
        mebibytes = runtimes.size(runtime, directory) / 2**20
        yield {**about, "phase": "size", "value": mebibytes, "unit": "MiB"}
        start = time.perf_counter()
        runs[variant] = runtimes.load(runtime, directory, settings["threads"])
        runs[variant](np.zeros((1, *shape), np.uint8))
        seconds = time.perf_counter() - start
        yield {**about, "phase": "load", "value": seconds, "unit": "s"}
    rng = np.random.default_rng(0)
    for batch in settings["batches"] if runs else ():
        images = rng.integers(0, 256, (batch, *shape), dtype=np.uint8)
        calls = {v: functools.partial(run, images) for v, run in runs.items()}
        times = timing.times(calls, settings["rounds"])
        for variant, values in times.items():
            case = f"{network} {size}, {runtime}, batch {batch}"
            about = {"case": case, "variant": variant}
            for share in PERCENTILES:
                value = float(np.percentile(values, share)) * 1e3
                yield {**about, "phase": f"p{share}", "value": value, "unit": "ms"}
            rate = batch / float(np.mean(values))
            yield {**about, "phase": "throughput", "value": rate, "unit": "images/s"}
