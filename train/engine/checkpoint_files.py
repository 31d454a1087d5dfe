"""Checkpoint files: which there are in a directory, and what one of them holds."""

import contextlib
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Iterator

import tensorflow as tf

from train.cli import RunError
from train.engine import run_directory
from train.paths import require_literal, require_regular

# What a full disk, missing rights or a lost worker raise: no fault of a checkpoint.
ELSEWHERE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)


NAME = re.compile(r"ckpt-[0-9]{1,18}")


class DamagedError(RunError):
    """A checkpoint cannot be read."""


def saved(directory) -> list[str]:
    """Paths of the checkpoints in a directory, the newest first.

    By their files, and by the list that TensorFlow keeps beside them once they are
    whole: a file that is missing is damage. Without a file and not in the list are
    those that a kill has cut short. Copies under other names are none.
    """
    require_literal(directory, "of the run")
    directory = pathlib.Path(directory)
    files = [*directory.glob("*.index"), *directory.glob("*.data-*")]
    for file in files:
        require_regular(file)
    names = {path.stem for path in files if path.suffix == ".index"}
    names = filter(NAME.fullmatch, names | _listed(directory))
    return sorted((str(directory / name) for name in names), key=step_of, reverse=True)


def _listed(directory) -> set[str]:
    """Names in TensorFlow's list, a text file."""
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except UnicodeDecodeError:
        return set()
    paths = state.all_model_checkpoint_paths if state else ()
    return {os.path.basename(path) for path in paths}


def drop_damaged_list(directory: pathlib.Path, writes: bool) -> None:
    """TensorFlow's list is only a help, but its manager does not start with noise."""
    file = directory / "checkpoint"
    if not file.is_file():
        return
    try:
        file.read_text()
    except UnicodeDecodeError:
        logging.getLogger(__name__).warning("%s is damaged and not used", file)
        if writes:
            file.unlink()


def step_of(path: str) -> int:
    """The number in its name."""
    return int(path.rpartition("-")[2])


@contextlib.contextmanager
def readable(path: str):
    """Within it TensorFlow's errors are `DamagedError`s that name the checkpoint."""
    try:
        yield
    except ELSEWHERE:
        raise
    except (tf.errors.OpError, IndexError, ValueError) as error:
        raise DamagedError(f"{path} is a damaged checkpoint: {error}") from error


def by_path(kind: str, variables, owner: str = "") -> dict[str, tf.Variable]:
    """Variables by path, without what Keras numbers through a process.

    That is the name of their owner, and those of the seeds of random layers.
    """
    named, seeds = {}, 0
    for variable in variables:
        path = variable.path.removeprefix(f"{owner}/")
        if path.endswith("seed_generator_state"):
            path, seeds = f"seed_{seeds}", seeds + 1
        named[f"{kind}/{path}"] = variable.value
    return named


def require_equal_shapes(path: str, variables: dict, prefix: str = "") -> None:
    """Compares names and shapes before a restore touches anything.

    Raises:
        DamagedError: the checkpoint cannot be read.
        RunError: it is of another model.
    """
    with readable(path):
        listed = tf.train.list_variables(path)
    stored = {_plain(name): shape for name, shape in listed if _plain(name)}
    stored = {name: shape for name, shape in stored.items() if name.startswith(prefix)}
    expected = {name: v.shape.as_list() for name, v in variables.items()}
    for name, old, new in run_directory.differences(expected, stored):
        raise RunError(
            f"{path} is a checkpoint of another model. Expected {name} of shape {old}. "
            f"Received: {new}."
        )


def states(directory: str | pathlib.Path) -> Iterator[dict]:
    """What the readable checkpoints in a directory say, the newest first."""
    for path in saved(directory):
        with contextlib.suppress(DamagedError):
            yield recorded(path)


def recorded(path: str) -> dict[str, int | float]:
    """The state of the run in a checkpoint: `checkpoint.new_state`, as numbers."""
    with readable(path):
        reader = tf.train.load_checkpoint(path)
        names = {_plain(name): name for name in reader.get_variable_to_shape_map()}
        return {
            name.removeprefix("state/"): reader.get_tensor(names[name]).item()
            for name in names
            if name.startswith("state/")
        }


def stored_digest(path: str, prefix: str) -> str:
    """As `digest_of`, of the variables in a checkpoint whose names begin so."""
    with readable(path):
        reader = tf.train.load_checkpoint(path)
        names = {_plain(name): name for name in reader.get_variable_to_shape_map()}
        return _sha256(
            (name, reader.get_tensor(names[name]))
            for name in sorted(names)
            if name and name.startswith(prefix)
        )


def short(sha256: str) -> int:
    """The beginning of a digest, as a number that fits into int64."""
    return int(sha256[:14], 16)


def digest_of(variables: dict) -> str:
    """sha256 of variables in the order of their names: name, type, shape and bytes."""
    return _sha256((name, variables[name].numpy()) for name in sorted(variables))


def _sha256(values):
    """Of pairs of names and arrays."""
    sha256 = hashlib.sha256()
    for name, value in values:
        sha256.update(f"{name} {value.dtype} {value.shape}\n".encode())
        sha256.update(value.tobytes())
    return sha256.hexdigest()


def _plain(name):
    """The path of a variable in a checkpoint; empty for what is no variable of ours."""
    prefix, suffix = "variables/", "/.ATTRIBUTES/VARIABLE_VALUE"
    if not name.startswith(prefix):
        return ""
    return name.removeprefix(prefix).removesuffix(suffix).replace(".S", "/")
