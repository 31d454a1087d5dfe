"""python -m train.report: compares finished runs.

    python -m train.report runs/digits runs/digits_bn --svm

`--svm` adds a support vector machine on the pixels of the first run's training images
(scikit-learn's, RBF kernel), as a baseline for small images.
"""

import os
import pathlib
import shlex

from absl import flags

from train import cli, paths, tables
from train.engine import run_directory, runs_table
from train.export import runtimes, saved_model


def define_flags():
    flags.DEFINE_bool("svm", False, "Adds a support vector machine to the table.")
    paths.DEFINE_path("csv", "Also writes the runs to this CSV file.", paths.output)
    paths.DEFINE_data_place()


def main(arguments):
    if not arguments:
        raise cli.UsageError("Expected at least one run. Received: none.")
    runs = [pathlib.Path(paths.expand(argument, "RUN")) for argument in arguments]
    results = [run_directory.read_results(run) for run in runs]
    for run, each in zip(runs, results, strict=True):
        if (version := run / "export" / str(each["step"])).exists():
            saved_model.require_results(version, each)
    rows = list(map(runs_table.row, runs, results))
    if flags.FLAGS.svm:
        rows.append(runs_table.svm_row(runs[0], flags.FLAGS.data_dir, flags.FLAGS.data))
    tables.show(runs_table.COLUMNS, rows)
    if flags.FLAGS.csv:
        named = [
            {"run": "", **each} | {"run": str(run)}
            for run, each in zip(runs, results, strict=True)
        ]
        tables.write_csv(pathlib.Path(flags.FLAGS.csv), named)
    exported = ((run, runtimes.exports(run)) for run in runs)
    lines = [f"SavedModel of {run}: {each[-1]}" for run, each in exported if each]
    parents = os.path.commonpath([run.resolve().parent for run in runs])
    for line in (*lines, f"curves: tensorboard --logdir {shlex.quote(parents)}"):
        print(tables.printable(line))


if __name__ == "__main__":
    cli.run(main, define_flags)
