"""The fingerprint of a run, and its directory, which no other run may take.

RUN/config.json        recipe, images and number of replicas: what the run is
"""

import dataclasses
import hashlib
import json
import os
import pathlib

import tensorflow as tf

from train import config, paths
from train.cli import RunError, UsageError
from train.engine import strategies

NUMBERS = ("parameters", "images", "top1", "loss", "step")  # in results.json
AGAIN = "Without it the run, started again, reads the test images again."
DIRECTORIES = ("checkpoints", "best", "train", "validation", "export")  # in a run
# What reading a JSON file of another shape than expected raises.
WRONG = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
WRITING = ".writing"  # ends the name of a file that is not whole yet


def write_json(path: pathlib.Path, values: dict) -> None:
    """Writes a JSON file that is complete or not there."""
    text = json.dumps(values, indent=2)
    aside = path.with_name(f"{path.name}{WRITING}")
    with aside.open("w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The fingerprint of a run, and enough to build its model again.

    Attributes:
        recipe: what it trains.
        replicas: devices that share a batch.
        shape: (height, width, channels) of an image.
        class_names: one for each label.
        images: number of images by split.
        fingerprint: of the images and labels.
        identity: of the run, in its checkpoints; given when it begins.
    """

    recipe: config.Recipe
    replicas: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    images: dict[str, int]
    fingerprint: str
    identity: int = 0

    def essence(self) -> dict:
        """As JSON has it, without the place of the data, whose content counts."""
        # through JSON, which has lists for tuples and strings for all keys
        values = json.loads(json.dumps(dataclasses.asdict(self)))
        del values["identity"], values["recipe"]["data"]["name"]
        return values

    def digest(self) -> int:
        """Of all that makes the run what it is; fits into int64."""
        text = json.dumps(self.essence())
        values = json.loads(text, parse_int=float)  # 5 epochs are 5.0 epochs
        text = json.dumps(values, sort_keys=True).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:7])


def read_facts(run: pathlib.Path) -> Facts:
    """The fingerprint of an existing run.

    Raises:
        RunError: the directory holds no run.
    """
    path = run / "config.json"
    paths.require_regular(path)
    try:
        return config.from_dict(Facts, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, *WRONG, UsageError) as error:
        raise RunError(
            f"{run} is not the directory of a run. Expected a readable config.json in "
            f"it. Received: {error!r}."
        ) from error


def require_agreement(facts: Facts, strategy) -> None:
    """Before the processes of a run share anything.

    Raises:
        RunError: they have different recipes or data.
    """
    numbers = strategies.gather(strategy, facts.digest())
    if len({*numbers}) > 1:
        raise RunError(
            "The workers are not of one run. Expected equal recipes and data. Received "
            f"fingerprints {', '.join(f'{number:x}' for number in numbers)}."
        )


def claim(run: pathlib.Path, facts: Facts, strategy=None) -> Facts:
    """Makes `run` the directory of the run with this fingerprint.

    All processes of the run must see it; the chief alone writes. Data that has moved is
    looked for at its new place from now on.

    Returns:
        The facts with the identity of the run.

    Raises:
        RunError: the directory belongs to another run, or holds something else, or
            a process does not see what the chief has written.
    """
    strategy = strategy or tf.distribute.get_strategy()
    for directory in (run, *(run / name for name in DIRECTORIES)):
        if directory.exists() and not directory.is_dir():
            raise RunError(
                f"Expected a directory for the run. Received: the file {directory}."
            )
    is_new = not run.exists() or all(
        path.name.endswith(WRITING) for path in run.iterdir()
    )
    old = None if is_new else _require_equal_facts(run, facts)
    identity = old.identity if old else facts.digest()
    facts = dataclasses.replace(facts, identity=identity)
    is_elsewhere = not old or old.recipe.data.name != facts.recipe.data.name
    strategies.gather(strategy, is_new)  # everyone has looked
    if is_elsewhere and strategies.is_chief(strategy):
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", dataclasses.asdict(facts))
    strategies.gather(strategy, is_new)  # now it is there for everyone
    _require_equal_facts(run, facts)
    return facts


def _require_equal_facts(run, facts):
    """The facts in the directory, if they are of the same run."""
    old = read_facts(run)
    differing = [
        f"{name}: expected {before!r}, received {after!r}"
        for name, before, after in differences(old.essence(), facts.essence())
    ]
    if differing:
        raise RunError(
            f"{run} belongs to another run. Use another --workdir, or start it with "
            f"its own settings: {'; '.join(differing)}."
        )
    return old


def read_results(run: pathlib.Path, **expected) -> dict:
    """results.json of a finished run.

    Args:
        run: its directory.
        **expected: values that it must have, such as the sha256 of the best weights.

    Raises:
        RunError: the run is not finished, or the file is damaged or of other weights.
    """
    read_facts(run)
    path = run / "results.json"
    paths.require_regular(path)
    if not path.exists():
        raise RunError(
            f"{run} is not finished. Expected its results.json; start its training "
            "again to go on."
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
                f"{path} is not of the best weights of its run. Expected {name} "
                f"{value}. Received: {results.get(name)}. {AGAIN}"
            )
    return results


def differences(old: dict, new: dict, prefix: str = ""):
    """(name, old, new) of what differs, however deep."""
    for name in sorted({*old, *new}):
        pair = old.get(name), new.get(name)
        if all(isinstance(value, dict) for value in pair):
            yield from differences(*pair, f"{prefix}{name}.")
        elif pair[0] != pair[1]:
            yield f"{prefix}{name}", *pair
