"""The runs of a sweep: every recipe with every variation and every seed."""

import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Sequence

from train import config, fields, paths, recipes
from train.cli import RunError, UsageError

SETTLED = ("mean", "std", "reverse_channels")  # fields of data that a run fills in


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep.

    Attributes:
        workdir: Directory of the run.
        recipe: Name of the recipe.
        seed: Seed of the run.
        variation: Assignments such as `optimizer.learning_rate=0.1`, in which it
            differs from other runs of the recipe.
        settings: The complete recipe.
        flags: The flags of `python -m train`.
    """

    workdir: pathlib.Path
    recipe: str
    seed: int
    variation: tuple[str, ...]
    settings: config.Recipe
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.workdir.name

    def results(self) -> dict | None:
        """Returns the contents of results.json, or `None` if the run is not finished.

        Raises:
            RunError: If the directory belongs to a run with other settings.
        """
        self._require_own()
        path = self.workdir / "results.json"
        paths.require_regular(path)
        if not path.exists():
            return None
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            float(results["top1"]), float(results["loss"])
            return results
        except (TypeError, LookupError, ValueError) as error:
            raise RunError(
                f"{path} is damaged. Expected results of a run. Received: {error!r}. "
                "Delete it to test its best weights again."
            ) from error

    def _require_own(self):
        path = self.workdir / "config.json"
        paths.require_regular(path)
        if not path.exists():
            return
        try:
            values = json.loads(path.read_text(encoding="utf-8"))["recipe"]
            stored = config.from_dict(config.Recipe, values)
        except (LookupError, TypeError, ValueError, UsageError) as error:
            raise RunError(
                f"{self.workdir} is not the directory of a run. Expected a readable "
                f"config.json in it. Received: {error!r}."
            ) from error
        given = {
            name: getattr(stored.data, name)
            for name in SETTLED
            if getattr(self.settings.data, name) in (None, False)
        }
        data = dataclasses.replace(self.settings.data, **given)
        if dataclasses.replace(self.settings, data=data) != stored:
            raise RunError(
                f"{self.workdir} belongs to a run with other settings. Expected those "
                "of this sweep; use another --workdir for other ones. Received: "
                f"{_difference(stored, self.settings)}."
            )


def _difference(stored, wanted):
    given = fields.flat(wanted)
    return "; ".join(
        f"{name}={value!r}"
        for name, value in fields.flat(stored).items()
        if value != given[name]
        and not (name.removeprefix("data.") in SETTLED and given[name] in (None, False))
    )


def plan(
    directory: pathlib.Path,
    names: Sequence[str],
    seeds: Sequence[int],
    assignments: Sequence[str] = (),
    variations: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> list[PlannedRun]:
    """Returns the runs of a sweep, those with the first seed first.

    Args:
        directory: Directory of the sweep, in which each run has one.
        names: Names of recipes.
        seeds: Seeds.
        assignments: FIELD=VALUE for all runs.
        variations: FIELD=VALUE. Several values of a field are alternatives, and
            different fields are combined.
        flags: Further flags of `python -m train` for all runs.

    Raises:
        UsageError: If there is no such recipe or field, a value does not fit it, or two
            runs would have the same directory.
    """
    for assignment in (*assignments, *variations):
        if assignment.partition("=")[0] == "seed":
            raise UsageError(
                f"Expected --seed=0,1,2 for seeds. Received: the field {assignment}."
            )
    values = {}
    for variation in dict.fromkeys(variations):
        values.setdefault(variation.partition("=")[0], []).append(variation)
    runs = []
    for seed, name, chosen in itertools.product(
        dict.fromkeys(seeds), dict.fromkeys(names), itertools.product(*values.values())
    ):
        given = (*assignments, *chosen)
        settings = config.override(
            recipes.create_recipe(name), [*given, f"seed={seed}"]
        )
        workdir = directory / "-".join((name, *map(_short, chosen), f"seed{seed}"))
        runs.append(
            PlannedRun(
                workdir,
                name,
                seed,
                chosen,
                settings,
                (
                    *(f"--recipe={name}", f"--workdir={workdir}"),
                    *(f"--set={each}" for each in given),
                    *(f"--seed={seed}", *flags),
                ),
            )
        )
    for number, run in enumerate(runs):
        for other in runs[:number]:
            if run.workdir == other.workdir or run.settings == other.settings:
                raise UsageError(
                    "Expected recipes and values of --vary that differ, the latter in "
                    "letters or digits. Received: the same run twice, "
                    f"{other.name} and {run.name}."
                )
    return runs


def _short(assignment):
    """Returns the last part of a field's name and a value, as a part of a file name."""
    field, _, value = assignment.partition("=")
    value = re.sub(r"[^A-Za-z0-9.+]+", "_", value).strip("_")
    return f"{field.rpartition('.')[2]}={value}"
