"""python -m train.report: finished runs side by side.

    python -m train.report runs/digits runs/digits_bn --svm

`--svm` adds a support vector machine on the pixels of the first run's training images
(scikit-learn's, RBF kernel), the yardstick for small images.
"""

import os
import pathlib
import shlex

import numpy as np
import sklearn.svm
from absl import flags

from train import cli, paths, tables
from train.engine import run_directory
from train.export import runtimes, saved_model
from train.input import dataset, pipeline

COLUMNS = ("run", "model", "parameters", "test top-1", "test loss", "best step")


def row(run: pathlib.Path, results: dict) -> tuple[str, ...]:
    """The line of a run in the table."""
    return (
        str(run),
        results["model"],
        f"{results['parameters']:,}",
        f"{results['top1']:.4f}",
        f"{results['loss']:.4f}",
        str(results["step"]),
    )


def svm_row(
    run: pathlib.Path, data_dir: str | None, place: str | None = None
) -> tuple[str, ...]:
    """The line of the support vector machine on a run's data."""
    facts = run_directory.read_facts(run)
    images = dataset.load_again(facts.recipe.data, facts.fingerprint, data_dir, place)
    train, test = (_pixels(images, split) for split in ("train", "test"))
    # gamma as in scikit-learn's own example, which has pixels of 0 to 16
    machine = sklearn.svm.SVC(gamma=0.001 * 16**2).fit(*train)
    accuracy = f"{machine.score(*test):.4f}"
    return f"{facts.recipe.data.name} pixels", "SVM (RBF)", "", accuracy, "", ""


def _pixels(images, split):
    count = len(images.splits[split])
    batches = pipeline.evaluation_batches(images, split, count, standardized=False)
    pixels, labels, _ = batches.get_single_element()
    return np.reshape(pixels, (count, -1)) / 255, labels.numpy()


def define_flags():
    flags.DEFINE_bool("svm", False, "Adds a support vector machine to the table.")
    paths.DEFINE_path("csv", "Writes the runs to this CSV file, too.", paths.output)
    paths.DEFINE_data_place()


def main(arguments):
    if not arguments:
        raise cli.UsageError("Expected at least one run. Received: none.")
    runs = [pathlib.Path(paths.expand(argument, "RUN")) for argument in arguments]
    results = [run_directory.read_results(run) for run in runs]
    for run, each in zip(runs, results, strict=True):
        if (version := run / "export" / str(each["step"])).exists():
            saved_model.require_results(version, each)
    rows = list(map(row, runs, results))
    if flags.FLAGS.svm:
        rows.append(svm_row(runs[0], flags.FLAGS.data_dir, flags.FLAGS.data))
    tables.show(COLUMNS, rows)
    if flags.FLAGS.csv:
        named = [
            {"run": "", **each} | {"run": str(run)}
            for run, each in zip(runs, results, strict=True)
        ]
        tables.write_csv(pathlib.Path(flags.FLAGS.csv), named)
    lines = [f"SavedModel of {run}: {runtimes.newest_export(run)}" for run in runs]
    parents = os.path.commonpath([run.resolve().parent for run in runs])
    for line in (*lines, f"curves: tensorboard --logdir {shlex.quote(parents)}"):
        print(tables.printable(line))


if __name__ == "__main__":
    cli.run(main, define_flags)
