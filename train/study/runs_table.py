"""The table that compares runs, with a support vector machine as a baseline."""

import pathlib

import numpy as np
import sklearn.svm

from train.engine import run_directory
from train.input import pipeline

COLUMNS = ("run", "model", "parameters", "test top-1", "test loss", "best step")


def row(run: pathlib.Path, results: dict) -> tuple[str, ...]:
    """Returns the row of a run in the table."""
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
    """Returns the row of the support vector machine on a run's data."""
    spec = run_directory.read_spec(run)
    data = spec.load_data(data_dir, place)
    train, test = (_pixels(data, split) for split in ("train", "test"))
    # gamma as in scikit-learn's own example, whose pixels range from 0 to 16
    machine = sklearn.svm.SVC(gamma=0.001 * 16**2).fit(*train)
    accuracy = f"{machine.score(*test):.4f}"
    return f"{spec.recipe.data.name} pixels", "SVM (RBF)", "", accuracy, "", ""


def _pixels(data, split):
    count = len(data.splits[split])
    batches = pipeline.evaluation_batches(data, split, count, standardized=False)
    pixels, labels, _ = batches.get_single_element()
    return np.reshape(pixels, (count, -1)) / 255, labels.numpy()
