"""python -m train.sweep: trains recipes with several seeds and settings.

    python -m train.sweep --recipe=digits,digits_bn --seed=0,1,2 --workdir=runs/sweep
    python -m train.report runs/sweep --html=report.html

trains each recipe with each seed, in a directory of its own in `--workdir`, and writes
their results to `sweep.csv` there. `--set` sets a field of the recipe for all runs;
`--vary` is repeated to give a field several values. Flags after `--`, such as
`--strategy=mirrored`, are passed to `python -m train`.

Started again, it skips runs that are finished, and resumes the others. If a run fails,
the others go on; the exit code is 1, and `sweep.csv` has the error.
"""

import contextlib
import functools
import pathlib
import time

from absl import flags

from train import cli, config, paths, tables
from train.engine.progress import duration
from train.study import plan, schedule

COLUMNS = ("run", "recipe", "variation", "seed", "status", "error")
PASSED = ("strategy", "logical_cpus", "tpu", "join_timeout")  # flags for the runs
DONE, FAILED, WAITING = "done", "failed", "not finished"


def define_flags():
    paths.DEFINE_path("workdir", "Directory of the sweep.", paths.literal)
    flags.DEFINE_list("recipe", [], "Names of recipes.")
    flags.DEFINE_list("seed", ["0"], "Seeds.")
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE for all runs.")
    flags.DEFINE_multi_string("vary", [], "FIELD=VALUE, one of several values.")
    flags.DEFINE_string("data", None, f"{config.DATA_SETS}.")
    paths.DEFINE_data_dir()
    flags.DEFINE_integer("processes", 1, "Runs at a time.", 1, 1024)
    flags.DEFINE_boolean("export", False, "Also export the best weights of each run.")


def main(arguments):
    values = flags.FLAGS
    cli.require("workdir")
    if not values.recipe:
        raise cli.UsageError("Expected at least one --recipe=NAME. Received: none.")
    _check_passed(arguments)
    directory = pathlib.Path(values.workdir)
    assignments = [*([f"data.name={values.data}"] if values.data else []), *values.set]
    passed = [f"--data_dir={values.data_dir}"] if values.data_dir else []
    passed += [f"--{'' if values.export else 'no'}export", *arguments]
    runs = plan.plan(
        directory, values.recipe, _seeds(values.seed), assignments, values.vary, passed
    )
    rows = {run.name: _row(run, run.results()) for run in runs}
    directory.mkdir(parents=True, exist_ok=True)
    with cli.lock(directory, "is sweeping in"):
        _sweep(directory, runs, rows)
    failed = [name for name, row in rows.items() if row["status"] == FAILED]
    if failed:
        raise cli.RunError(
            f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}. Expected "
            f"none; see {directory / 'sweep.csv'} and {directory / 'logs'}."
        )
    if any(row["status"] == WAITING for row in rows.values()):
        raise cli.Preempted(
            f"some runs have stopped; everything is saved in {directory}. Start the "
            "same command again to resume."
        )
    print(f"compare  python -m train.report {directory} --html={directory}/report.html")


def _seeds(texts):
    if not texts or not all(text.isdecimal() for text in texts):
        raise cli.UsageError(
            "Expected --seed=0,1,2 or other integers. Received: "
            f"{','.join(texts) or 'none'}."
        )
    return [int(text) for text in texts]


def _check_passed(arguments):
    """Checks flags for the runs: what defines a run, the sweep itself must know."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("--") or name not in PASSED:
            raise cli.UsageError(
                f"Expected {', '.join(f'--{each}' for each in PASSED)} after --; "
                "other settings of the runs are given with --set=FIELD=VALUE. "
                f"Received: {argument}."
            )


def _sweep(directory, runs, rows):
    logs, table = directory / "logs", directory / "sweep.csv"
    logs.mkdir(exist_ok=True)
    left = [run for run in runs if not _is_done(run, rows)]
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them are done", flush=True)
    processes = min(flags.FLAGS.processes, len(left) or 1)
    trained = schedule.Schedule(logs, processes, functools.partial(print, flush=True))
    ended, begin = 0, time.monotonic()
    _write(table, rows)
    with contextlib.closing(trained.execute(left)) as ending:
        for run, code, seconds in ending:
            results, error = None, f"exit code {code}: {trained.error(run)}"
            if code == cli.DONE:
                try:
                    results, error = run.results(), ""
                except cli.RunError as damaged:
                    error = str(damaged)
            status = DONE if results else WAITING if code == cli.PREEMPTED else FAILED
            rows[run.name] = _row(run, results, status, error)
            _write(table, rows)
            ended += 1
            estimate = (time.monotonic() - begin) / ended * (len(left) - ended)
            shown = f"top-1 {results['top1']:.4f}" if results else error
            print(
                f"{status:<8} {run.name}  {tables.printable(shown)}  "
                f"{duration(seconds)}  {ended}/{len(left)}, {duration(estimate)} left",
                flush=True,
            )


def _is_done(run, rows):
    has_export = any((run.workdir / "export").glob("[0-9]*/saved_model.pb"))
    return rows[run.name]["status"] == DONE and (has_export or not flags.FLAGS.export)


def _row(run, results, status=None, error=""):
    status = status or (DONE if results else WAITING)
    known = (run.name, run.recipe, " ".join(run.variation), run.seed)
    row = dict(zip(COLUMNS, (*known, status, error), strict=True))
    return row | (results or {})


def _write(table, rows):
    tables.write_csv(table, rows.values())


if __name__ == "__main__":
    cli.run(main, define_flags)
