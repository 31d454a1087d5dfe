"""Trains and evaluates the runs of experiments/plan.md, by Keras on JAX.

    KERAS_BACKEND=jax python -m experiments.run --data=DIR --corrupted=FILE.npz \
        --out=results.csv --processes=8

`--data` is that of `examples/fit.py`; `--corrupted` comes from `experiments.corrupt`.
Adds a row to `--out` for each run; runs that are there are not repeated. Tuning comes
first; then each network and variant is trained with its best setting.
"""

import argparse
import collections
import concurrent.futures
import csv
import datetime
import multiprocessing
import os
import pathlib
import time

from experiments import plan


def work(job, arguments):
    """Returns the row of a job. Runs in a process of its own that has JAX."""
    import jax
    import keras

    from experiments import training

    started = time.perf_counter()
    keras.utils.clear_session()
    results = training.run(job, plan.EPOCHS[job.stage], arguments)
    return {
        **job._asdict(),
        "epochs": plan.EPOCHS[job.stage],
        **results,
        "seconds": time.perf_counter() - started,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "keras": keras.__version__,
        "commit": arguments.commit,
        "date": datetime.date.today().isoformat(),
    }


def main(argv=None):
    arguments = parse(argv)
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    rows = []
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            rows = [*csv.DictReader(file)]
    end = time.monotonic() + 60 * arguments.minutes
    with concurrent.futures.ProcessPoolExecutor(
        arguments.processes, multiprocessing.get_context("spawn")
    ) as pool:
        for wanted in (plan.tuning_jobs, lambda: plan.jobs(rows)):
            done = {plan.key(row) for row in rows}
            waiting = [job for job in wanted() if plan.key(job._asdict()) not in done]
            complete = run_all(pool, waiting, arguments, end, rows)
            if not complete:
                break
    print(f"{len(rows)} rows in {arguments.out}")


def run_all(pool, waiting, arguments, end, rows) -> bool:
    """Runs the jobs until the time is over; returns whether all of them have run."""
    waiting, running = collections.deque(waiting), set()
    while waiting or running:
        while waiting and len(running) < arguments.processes and time.monotonic() < end:
            running.add(pool.submit(work, waiting.popleft(), arguments))
        if not running:
            return False
        finished, running = concurrent.futures.wait(
            running, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in finished:
            row = future.result()
            rows.append(row)
            add(row, arguments.out)
            print(
                *(row[name] for name in (*plan.KEY, "validation_top1", "seconds")),
                flush=True,
            )
    return True


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
    add("--data", type=pathlib.Path, required=True)
    add("--corrupted", type=pathlib.Path, required=True)
    add("--out", type=pathlib.Path, required=True, help="CSV file")
    add("--weights", type=pathlib.Path, help="directory for the weights of all runs")
    add("--processes", type=int, default=1)
    add("--minutes", type=float, default=10**6, help="no run starts after these")
    add("--commit", default="", help="recorded in the rows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
