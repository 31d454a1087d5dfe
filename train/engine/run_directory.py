"""What defines a run, and its directory, which no other run may use.

RUN/config.json        recipe, images and number of replicas, which define the run
RUN/starts.jsonl       a line for each start: time, step, command, versions, commit
"""

import dataclasses
import datetime
import hashlib
import json
import math
import os
import pathlib
import platform
import shlex
import sys

import tensorflow as tf

from train import config, files, paths, versions
from train.cli import RunError, UsageError
from train.engine import strategies
from train.input import dataset

NUMBERS = ("parameters", "images", "top1", "loss", "step")  # in results.json
LENGTH = ("recipe.epochs:", "recipe.steps:")  # in which a longer run differs
AGAIN = "Delete it and start the run again to evaluate the test images again."
DIRECTORIES = ("checkpoints", "best", "train", "validation", "export")  # in a run
# Raised by reading a JSON file that does not have the expected structure.
WRONG = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


def write_json(path: pathlib.Path, values: dict) -> None:
    """Writes a JSON file completely or not at all."""
    text = json.dumps(values, indent=2)
    with files.replaced(path) as file:
        file.write(f"{text}\n")


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """What defines a run, sufficient to rebuild its model.

    Attributes:
        recipe: The recipe that it trains.
        replicas: Number of devices that share a batch.
        shape: Shape of an image, (height, width, channels).
        class_names: One name per label.
        images: Number of images by split.
        fingerprint: The fingerprint of the images and labels.
        identity: The identity of the run in its checkpoints, assigned at its start.
    """

    recipe: config.Recipe
    replicas: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    images: dict[str, int]
    fingerprint: str
    identity: int = 0

    @property
    def steps_per_epoch(self) -> float:
        """The number of steps in an epoch, which may be fractional."""
        return self.images["train"] / self.recipe.batch_size

    @property
    def steps(self) -> int:
        """The length of the run."""
        return self.recipe.steps or math.ceil(self.recipe.epochs * self.steps_per_epoch)

    def load_data(
        self, data_dir: str | None, place: str | None = None
    ) -> dataset.ImageData:
        """Opens the data set of the run, as `dataset.load_again`."""
        return dataset.load_again(self.recipe.data, self.fingerprint, data_dir, place)

    def essence(self) -> dict:
        """Returns JSON values without the location of the data, which may change."""
        # via JSON, which turns tuples into lists and all keys into strings
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        del values["identity"], values["recipe"]["data"]["name"]
        return values

    def digest(self) -> int:
        """Returns a digest of everything that defines the run; it fits into int64."""
        text = json.dumps(self.essence())
        values = json.loads(text, parse_int=float)  # 5 epochs are 5.0 epochs
        text = json.dumps(values, sort_keys=True).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7])


def read_spec(run: pathlib.Path) -> RunSpec:
    """Reads the spec of an existing run.

    Raises:
        RunError: If the directory holds no run.
    """
    path = run / "config.json"
    paths.require_regular(path)
    try:
        return config.from_dict(RunSpec, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *WRONG, UsageError) as error:
        raise RunError(
            f"{run} is not the directory of a run. Expected a readable config.json in "
            f"it. Received: {error!r}."
        ) from error


def require_agreement(spec: RunSpec, strategy) -> None:
    """Checks that the processes of a run agree before they share anything.

    Raises:
        RunError: If they have different recipes or data.
    """
    numbers = strategies.gather(strategy, spec.digest())
    if len({*numbers}) > 1:
        raise RunError(
            "The workers belong to different runs. Expected equal recipes and data. "
            "Received digests "
            f"{', '.join(f'{number:x}' for number in numbers)}."
        )


def claim(run: pathlib.Path, spec: RunSpec, strategy=None) -> RunSpec:
    """Makes `run` the directory of the run with this spec.

    All processes of the run must see it; only the chief writes. Data that has moved is
    read from its new location from now on.

    Returns:
        The spec with the identity of the run.

    Raises:
        RunError: If the directory belongs to another run or holds something else, or
            a process does not see what the chief has written.
    """
    strategy = strategy or tf.distribute.get_strategy()
    for directory in (run, *(run / name for name in DIRECTORIES)):
        if directory.exists() and not directory.is_dir():
            raise RunError(
                f"Expected a directory for the run. Received: the file {directory}."
            )
    is_new = not run.exists() or all(
        path.name.endswith(files.WRITING) for path in run.iterdir()
    )
    old = None if is_new else _require_equal_specs(run, spec)
    identity = old.identity if old else spec.digest()
    spec = dataclasses.replace(spec, identity=identity)
    is_elsewhere = not old or old.recipe.data.name != spec.recipe.data.name
    strategies.gather(strategy, is_new)  # all processes have checked
    if is_elsewhere and strategies.is_chief(strategy):
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", dataclasses.asdict(spec))
    strategies.gather(strategy, is_new)  # now all processes can see it
    _require_equal_specs(run, spec)
    return spec


def _require_equal_specs(run, spec):
    """Returns the spec in the directory after checking that it is of this run."""
    old = read_spec(run)
    differing = [
        f"{name}: expected {before!r}, received {after!r}"
        for name, before, after in differences(old.essence(), spec.essence())
    ]
    if differing:
        advice = ""
        is_finished = (run / "results.json").exists()
        if is_finished and all(text.startswith(LENGTH) for text in differing):
            weights = shlex.quote(f"--set=model.weights={run}")
            advice = (
                " The learning rate depends on the length of the run; to train its "
                f"weights further, start a new run with {weights}."
            )
        raise RunError(
            f"{run} belongs to another run. Use another --workdir, or the settings of "
            f"that run: {'; '.join(differing)}.{advice}"
        )
    return old


def record_start(run: pathlib.Path, step: int) -> None:
    """Adds a line about this process, which starts or resumes the run, to its file."""
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": shlex.join(sys.orig_argv),
        "python": platform.python_version(),
        "versions": versions.packages(),
        "commit": versions.commit(),
    }
    path = run / "starts.jsonl"
    paths.require_regular(path)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":  # a crash cut the last line short
                file.write(b"\n")
        file.write(f"{json.dumps(start)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read_results(run: pathlib.Path, **expected) -> dict:
    """Reads results.json of a finished run.

    Args:
        run: The directory of the run.
        **expected: Values that it must have, such as the sha256 of the best weights.

    Raises:
        RunError: If the run is not finished, or the file is damaged or belongs to
            other weights.
    """
    read_spec(run)
    path = run / "results.json"
    paths.require_regular(path)
    if not path.exists():
        raise RunError(
            f"{run} is not finished. Expected its results.json; start its training "
            "again to resume."
        )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        numbers = [*NUMBERS, *({"top5"} & results.keys())]
        wrong = [name for name in numbers if not 0 <= results[name] < 2**63]
        if wrong or not isinstance(results["model"], str):
            name = wrong[0] if wrong else "model"
            raise ValueError(f"{name} {results[name]!r:.50}")
    except WRONG as error:
        raise RunError(
            f"{path} is damaged. Expected a model, and numbers {', '.join(NUMBERS)}. "
            f"Received: {error!r}. {AGAIN}"
        ) from error
    for name, value in expected.items():
        if results.get(name) != value:
            raise RunError(
                f"{path} does not belong to the best weights of its run. Expected "
                f"{name} {value}. Received: {results.get(name)}. {AGAIN}"
            )
    return results


def differences(old: dict, new: dict, prefix: str = ""):
    """Yields (name, old, new) for each value that differs, at any depth."""
    for name in sorted({*old, *new}):
        pair = old.get(name), new.get(name)
        if all(isinstance(value, dict) for value in pair):
            yield from differences(*pair, f"{prefix}{name}.")
        elif pair[0] != pair[1]:
            yield f"{prefix}{name}", *pair
