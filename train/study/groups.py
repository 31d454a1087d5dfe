"""Finished runs, grouped by everything but their seeds, and their statistics."""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.stats

from train import fields
from train.cli import RunError
from train.engine import run_directory

CONFIDENCE = 0.95
COLUMNS = ("runs", "seeds", "test top-1 (95 % interval)", "test loss")


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that has been tested.

    Attributes:
        directory: Its directory.
        spec: What defines it.
        results: The contents of results.json.
    """

    directory: pathlib.Path
    spec: run_directory.RunSpec
    results: dict

    @property
    def seed(self) -> int:
        return self.spec.recipe.seed

    @functools.cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """Epoch, loss and top1 of the splits "train" and "validation", (N, 3) each."""
        path = self.directory / "metrics.csv"
        points = {"train": [], "validation": []}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    numbers = [float(row[name]) for name in ("epoch", "loss", "top1")]
                    points[row["split"]].append(numbers)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} is damaged. Expected epoch, split, loss and top1. "
                f"Received: {error!r}."
            ) from error
        if not points["validation"]:
            raise RunError(
                f"{path} is damaged. Expected rows of the validation images. "
                "Received: none."
            )
        return {name: np.reshape(rows, (-1, 3)) for name, rows in points.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in their seeds only.

    Attributes:
        label: What distinguishes them from other groups.
        runs: The runs, sorted by their seeds.
    """

    label: str
    runs: tuple[FinishedRun, ...]

    def values(self, name: str) -> np.ndarray:
        """Returns a value of results.json for each run."""
        return np.array([run.results[name] for run in self.runs], float)


def find(places: Sequence[pathlib.Path]) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the directories of finished runs, and names of those not finished.

    Args:
        places: Directories of runs, or of sweeps.

    Raises:
        RunError: If a sweep has no finished run.
    """
    runs, unfinished = [], []
    for place in places:
        inside = sorted(path.parent for path in place.glob("*/config.json"))
        if (place / "config.json").exists() or not inside:
            runs.append(place)
            continue
        finished = [run for run in inside if (run / "results.json").exists()]
        logs = place.glob("logs/*.log")  # of runs that may have failed at once
        inside += sorted({place / log.stem for log in logs} - {*inside})
        if not finished:
            raise RunError(
                f"{place} has no finished run. Expected at least one. Received: "
                f"{', '.join(run.name for run in inside[:5])}."
            )
        runs += finished
        unfinished += [str(run) for run in inside if run not in finished]
    distinct = {run.resolve(): run for run in reversed(runs)}  # the first name counts
    return [run for run in runs if distinct[run.resolve()] is run], unfinished


def read(directories: Sequence[pathlib.Path]) -> list[FinishedRun]:
    """Reads finished runs.

    Raises:
        RunError: If one is not finished, or is damaged.
    """
    return [
        FinishedRun(
            directory,
            run_directory.read_spec(directory),
            run_directory.read_results(directory),
        )
        for directory in directories
    ]


def require_equal_data(runs: Sequence[FinishedRun]) -> None:
    """Checks that all runs were trained and tested on the same images.

    Raises:
        RunError: If they were not.
    """
    first, *others = runs
    for run in others:
        if run.spec.fingerprint != first.spec.fingerprint:
            raise RunError(
                "Runs with different images cannot be compared. Expected those of "
                f"{first.directory} ({first.spec.recipe.data.name}) in all. Received: "
                f"others in {run.directory} ({run.spec.recipe.data.name})."
            )


def is_distinct(group: Group) -> bool:
    """Whether the runs of a group have different seeds."""
    return len({run.seed for run in group.runs}) == len(group.runs)


def require_distinct(groups: Sequence[Group]) -> None:
    """Checks that the runs of each group have different seeds, to be paired by them.

    Raises:
        RunError: If two have the same recipe and seed.
    """
    for each in groups:
        if not is_distinct(each):
            raise RunError(
                "Expected runs that differ in seed or recipe. Received: several with "
                "equal ones among "
                f"{', '.join(str(run.directory) for run in each.runs[:5])}."
            )


def group(runs: Sequence[FinishedRun]) -> list[Group]:
    """Groups runs by their recipes without the seeds, in the order of the first ones.

    Groups are labelled with the name of the network and the fields that differ. Their
    data have one fingerprint, so names of data sets do not count.
    """
    settings = {}
    for run in runs:
        values = fields.flat(run.spec.recipe)
        del values["seed"], values["data.name"]
        settings[run] = {**values, "replicas": run.spec.replicas}
    first, *others = settings.values()
    differing = [
        name
        for name in first
        if name != "model.name" and any(each[name] != first[name] for each in others)
    ]
    members = {}
    for run, values in settings.items():
        shown = [f"{name.rpartition('.')[2]}={values[name]}" for name in differing]
        members.setdefault(" ".join((values["model.name"], *shown)), []).append(run)
    return [
        Group(label, tuple(sorted(together, key=lambda run: run.seed)))
        for label, together in members.items()
    ]


def interval(values: np.ndarray) -> tuple[float, float | None]:
    """Returns the mean and the half width of its 95 % confidence interval.

    Student's t; `None` for fewer than two values.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    quantile = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return mean, float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))


def shown_interval(values: np.ndarray) -> str:
    """Returns the mean, and plus or minus half of the interval if there is one."""
    mean, half = interval(values)
    return f"{mean:.4f}" if half is None else f"{mean:.4f} ± {half:.4f}"


def row(runs: Group) -> tuple[str, ...]:
    """Returns the row of a group in a table with the columns `COLUMNS`."""
    seeds = ", ".join(str(run.seed) for run in runs.runs)
    means = (shown_interval(runs.values(name)) for name in ("top1", "loss"))
    return runs.label, seeds, *means


def differences(one: Group, other: Group, name: str = "top1") -> np.ndarray:
    """Returns the value of `one` minus that of `other`, for each seed of both."""
    theirs = {run.seed: run.results[name] for run in other.runs}
    return np.array(
        [
            run.results[name] - theirs[run.seed]
            for run in one.runs
            if run.seed in theirs
        ],
        float,
    )
