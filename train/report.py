"""python -m train.report: finished runs side by side.

    python -m train.report runs/digits runs/digits_bn --svm

`--svm` adds a support vector machine on the pixels of the first run's training images
(scikit-learn's, RBF kernel), the yardstick for small images.
"""

import csv
import json
import os
import pathlib
import sys

import numpy as np
import rich.console
import rich.table
import sklearn.svm
from absl import flags

from train import command, data, fingerprint, paths, predict

COLUMNS = ("run", "model", "parameters", "test top-1", "test loss", "best step")
WIDTH = 100  # characters, where the terminal does not say


def read_results(run: pathlib.Path) -> dict:
    """results.json of a finished run.

    Raises:
        RunError: the run is not finished.
    """
    fingerprint.read_facts(run)
    path = run / "results.json"
    if not path.is_file():
        raise command.RunError(
            f"{run} is not finished. Expected its results.json; start its training "
            "again to go on."
        )
    return json.loads(path.read_text())


def row(run: pathlib.Path) -> tuple[str, ...]:
    """The line of a run in the table."""
    results = read_results(run)
    return (
        str(run),
        results["model"],
        f"{results['parameters']:,}",
        f"{results['top1']:.4f}",
        f"{results['loss']:.4f}",
        str(results["step"]),
    )


def svm_row(run: pathlib.Path, data_dir: str | None) -> tuple[str, ...]:
    """The line of the support vector machine on a run's data."""
    facts = fingerprint.read_facts(run)
    images = data.load(facts.recipe.data, data_dir)
    train, test = (_pixels(images, split) for split in ("train", "test"))
    # gamma as in scikit-learn's own example, which has pixels of 0 to 16
    machine = sklearn.svm.SVC(gamma=0.001 * 16**2).fit(*train)
    accuracy = f"{machine.score(*test):.4f}"
    return f"{facts.recipe.data.name} pixels", "SVM (RBF)", "", accuracy, "", ""


def _pixels(images, split):
    count = len(images.splits[split])
    batches = data.evaluation_batches(images, split, count, standardized=False)
    pixels, labels, _ = batches.get_single_element()
    return np.reshape(pixels, (count, -1)) / 255, labels.numpy()


def write_csv(path: pathlib.Path, runs: list[pathlib.Path]) -> None:
    """results.json of all runs as one table."""
    rows = [{"run": run.name, **read_results(run)} for run in runs]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def define_flags():
    flags.DEFINE_bool("svm", False, "Adds a support vector machine to the table.")
    paths.DEFINE_path("csv", "Writes the runs to this CSV file, too.", paths.output)
    paths.DEFINE_data_dir()


def main(arguments):
    if not arguments:
        raise command.UsageError("Expected at least one run. Received: none.")
    runs = [pathlib.Path(paths.expand(argument, "RUN")) for argument in arguments]
    rows = [row(run) for run in runs]
    if flags.FLAGS.svm:
        rows.append(svm_row(runs[0], flags.FLAGS.data_dir))
    table = rich.table.Table(*COLUMNS)
    for cells in rows:
        table.add_row(*cells)
    width = None if sys.stdout.isatty() else WIDTH
    rich.console.Console(width=width).print(table)
    if flags.FLAGS.csv:
        write_csv(pathlib.Path(flags.FLAGS.csv), runs)
    for run in runs:
        print(f"SavedModel of {run}: {predict.newest_export(run)}")
    parents = [run.parent.absolute() for run in runs]
    print(f"curves: tensorboard --logdir {os.path.commonpath(parents)}")


if __name__ == "__main__":
    command.run(main, define_flags)
