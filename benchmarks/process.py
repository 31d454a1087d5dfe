"""python -m benchmarks.process SETTINGS: measures in a fresh process, prints JSON."""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable

from benchmarks import timing


def measured(settings: dict) -> list[dict]:
    """Measures in this process; returns rows of case, variant, phase and value."""
    os.environ["KERAS_BACKEND"] = settings["backend"]
    if settings["backend"] == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    if settings["kind"] == "serve":  # a server does not have our packages
        from benchmarks import serving

        return list(serving.rows(settings))
    importlib.import_module("keras")
    start = time.perf_counter()
    importlib.import_module("model_zoo")
    imported = time.perf_counter()
    from benchmarks import networks

    if settings["kind"] == "device":
        return [{"device": networks.device()}]
    if settings["kind"] == "network":
        return timed(networks.network, settings)
    if settings["kind"] == "footprint":
        return networks.footprint(settings)
    from benchmarks import layers

    if settings["kind"] == "peak":
        return [layers.peak(settings)]
    if settings["kind"] == "first":
        phases = {"import": imported - start} | layers.startup(settings)
        common = {"case": "ResNet-20", "variant": settings["variant"], "unit": "s"}
        return [{**common, "phase": name, "value": phases[name]} for name in phases]
    if settings["kind"] == "input":
        return rates(settings)
    return timed(getattr(layers, settings["kind"]), settings)


def timed(cases: Callable, settings: dict) -> list[dict]:
    """Returns rows with the milliseconds of each call of each case."""
    rows = []
    for case, calls in cases(settings):
        for (variant, phase), seconds in timing.medians(
            calls, settings["rounds"]
        ).items():
            time_of = {"variant": variant, "phase": phase, "value": seconds * 1e3}
            rows.append({**case, **time_of, "unit": "ms"})
    return rows


def rates(settings: dict) -> list[dict]:
    """Returns rows with the images per second of input pipelines."""
    from benchmarks import input

    return [
        {
            "case": case,
            "variant": variant,
            "phase": "pipeline",
            "value": input.IMAGES / seconds,
            "unit": "images/s",
        }
        for case, calls in input.cases()
        for variant, seconds in timing.medians(calls, settings["rounds"]).items()
    ]


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))
