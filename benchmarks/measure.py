"""Runs fresh processes that measure, and evaluates their rows."""

import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys

from train import versions
from train.cli import RunError

NETWORK_VARIANTS = ("BN", "AN", "Keras BN")
CHAINS = ("BN", "Keras BN", "AN", "AN plain", "AN composite")
# PyTorch's threads would spin for a while after each call, which slows the next one.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def spawn(settings: dict) -> list[dict]:
    """Returns the rows of a fresh process.

    Raises:
        RunError: If the process fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.process", json.dumps(settings)],
        env={**os.environ, **QUIET_THREADS},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunError(f"A measuring process failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def kept_arrays(settings: dict) -> list[dict]:
    """Returns how peak memory grows with the depth of a chain, in arrays like x."""
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
    """Returns rows with the slope of log(time) over log(size) for each axis."""
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
    """Returns the rows of one fresh process per variant."""
    return [
        row
        for variant in ("BN", "AN", "AN plain")
        for row in spawn({**settings, "kind": "first", "variant": variant})
    ]


def networks(settings: dict) -> list[dict]:
    """Returns times of one process, and parameters and memory of one per variant."""
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


def environment(settings: dict) -> dict:
    """Returns columns with the settings, the machine and the versions."""
    (device,) = spawn({**settings, "kind": "device"})[0].values()
    return {
        "processes": settings["processes"],
        "rounds": settings["rounds"],
        "threads": settings["threads"],
        "machine": f"{os.cpu_count()} x {platform.machine()}, {device}",
        "backend": settings["backend"],
        "policy": settings["policy"],
        "python": platform.python_version(),
        **versions.packages("keras", "tensorflow", "jax", "torch"),
        "commit": versions.commit(),
        "date": datetime.date.today().isoformat(),
    }
