"""The fingerprint of a run, and its directory, which no other run may take.

RUN/config.json        recipe, images and number of replicas: what the run is
"""

import dataclasses
import hashlib
import json
import os
import pathlib

import tensorflow as tf

from train import config, strategies
from train.command import RunError

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
    """

    recipe: config.Recipe
    replicas: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    images: dict[str, int]
    fingerprint: str


def read_facts(run: pathlib.Path) -> Facts:
    """The fingerprint of an existing run.

    Raises:
        RunError: the directory holds no run.
    """
    try:
        return config.from_dict(Facts, json.loads((run / "config.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{run} is not the directory of a run. Expected a readable config.json in "
            f"it. Received: {error!r}."
        ) from error


def require_agreement(facts: Facts, strategy) -> None:
    """Before the processes of a run share anything.

    Raises:
        RunError: they have different recipes or data.
    """
    text = json.dumps(dataclasses.asdict(facts)).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:7])
    numbers = strategies.gather(strategy, number)
    if len({*numbers}) > 1:
        raise RunError(
            "The workers are not of one run. Expected equal recipes and data. Received "
            f"fingerprints {', '.join(f'{number:x}' for number in numbers)}."
        )


def claim(run: pathlib.Path, facts: Facts, strategy=None) -> None:
    """Makes `run` the directory of the run with this fingerprint.

    All processes of the run must see it; the chief alone writes.

    Raises:
        RunError: the directory belongs to another run, or holds something else, or
            a process does not see what the chief has written.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if run.exists() and not run.is_dir():
        raise RunError(f"Expected a directory for the run. Received: the file {run}.")
    is_new = not run.exists() or all(
        path.name.endswith(WRITING) for path in run.iterdir()
    )
    if not is_new:
        _require_equal_facts(run, facts)
    strategies.gather(strategy, is_new)  # everyone has looked
    if is_new and strategies.is_chief(strategy):
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "config.json", dataclasses.asdict(facts))
    strategies.gather(strategy, is_new)  # now it is there for everyone
    _require_equal_facts(run, facts)


def _require_equal_facts(run, facts):
    # through JSON, which has lists for tuples and strings for all keys
    old, new = (
        json.loads(json.dumps(dataclasses.asdict(which)))
        for which in (read_facts(run), facts)
    )
    differing = [
        f"{name}: expected {before!r}, received {after!r}"
        for name, before, after in differences(old, new)
    ]
    if differing:
        raise RunError(
            f"{run} belongs to another run. Use another --workdir, or start it with "
            f"its own settings: {'; '.join(differing)}."
        )


def differences(old: dict, new: dict, prefix: str = ""):
    """(name, old, new) of what differs, however deep."""
    for name in sorted({*old, *new}):
        pair = old.get(name), new.get(name)
        if all(isinstance(value, dict) for value in pair):
            yield from differences(*pair, f"{prefix}{name}.")
        elif pair[0] != pair[1]:
            yield f"{prefix}{name}", *pair
