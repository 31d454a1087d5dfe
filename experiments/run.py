"""Trains and evaluates the runs of experiments/plan.md, by Keras on JAX.

    KERAS_BACKEND=jax python -m experiments.run resnet20.an --data=DIR \\
        --corrupted=FILE.npz --out=runs.csv --tuning=FILE

trains a network and variant with all seeds. `--data` is that of `examples/fit.py`;
`--corrupted` comes from `experiments.corrupt`. Adds a row to `--out` for each run,
unless it is there. Settings without rows in `--tuning` are tried first.
"""

import argparse
import csv
import datetime
import pathlib
import time

import jax
import keras

from experiments import plan, training


def main(argv=None):
    arguments = parse(argv)
    network, variant = arguments.which.split(".")
    rows = [*read(arguments.out), *read(arguments.tuning)]
    for wanted in (plan.tuning_jobs, lambda: plan.jobs(rows)):
        done = {plan.key(row) for row in rows}
        for job in wanted():
            if job[1:3] == (network, variant) and plan.key(job._asdict()) not in done:
                rows.append(work(job, arguments))
                add(rows[-1], arguments.out)
                shown = (*plan.KEY, "validation_top1", "top1", "seconds")
                print(*(rows[-1].get(name, "") for name in shown), flush=True)


def work(job, arguments):
    started = time.perf_counter()
    return {
        **job._asdict(),
        "epochs": plan.EPOCHS[job.stage],
        **training.run(job, arguments),
        "seconds": time.perf_counter() - started,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "keras": keras.__version__,
        "commit": arguments.commit,
        "date": datetime.date.today().isoformat(),
    }


def read(path):
    if path is None or not path.exists():
        return []
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def add(row, path):
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, plan.COLUMNS, restval="")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("which", help="NETWORK.VARIANT")
    add("--data", type=pathlib.Path, required=True)
    add("--corrupted", type=pathlib.Path, required=True)
    add("--out", type=pathlib.Path, required=True, help="CSV file")
    add("--tuning", type=pathlib.Path, help="CSV file with rows of the tuning")
    add("--weights", type=pathlib.Path, help="directory for the weights of all runs")
    add("--commit", default="", help="recorded in the rows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
