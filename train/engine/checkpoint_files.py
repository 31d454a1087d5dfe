"""Lists the checkpoints in a directory and reads their contents."""

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

# Raised by a full disk, missing permissions or a lost worker, not by damage.
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
    """Returns the paths of the checkpoints in a directory, newest first.

    A checkpoint counts if it has an index file or is in the list that TensorFlow keeps
    of complete checkpoints; one that lost a file is damaged. A checkpoint interrupted
    by a kill has neither and does not count, nor do copies under other names.
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
    """Returns the names in TensorFlow's list, a text file."""
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except UnicodeDecodeError:
        return set()
    paths = state.all_model_checkpoint_paths if state else ()
    return {os.path.basename(path) for path in paths}


def drop_damaged_list(directory: pathlib.Path, writes: bool) -> None:
    """Deletes an unreadable list, which is optional but breaks TensorFlow's manager."""
    file = directory / "checkpoint"
    if not file.is_file():
        return
    try:
        file.read_text()
    except UnicodeDecodeError:
        logging.getLogger(__name__).warning("%s is damaged and ignored", file)
        if writes:
            file.unlink()


def step_of(path: str) -> int:
    """Returns the step in the name of a checkpoint."""
    return int(path.rpartition("-")[2])


@contextlib.contextmanager
def readable(path: str):
    """Turns TensorFlow's errors into `DamagedError`s that name the checkpoint."""
    try:
        yield
    except ELSEWHERE:
        raise
    except (tf.errors.OpError, IndexError, ValueError) as error:
        raise DamagedError(f"{path} is a damaged checkpoint: {error}") from error


def by_path(kind: str, variables, owner: str = "") -> dict[str, tf.Variable]:
    """Returns variables by path, without names that Keras numbers within a process.

    These are the name of their owner and the names of the seeds of random layers.
    """
    named, seeds = {}, 0
    for variable in variables:
        path = variable.path.removeprefix(f"{owner}/")
        if path.endswith("seed_generator_state"):
            path, seeds = f"seed_{seeds}", seeds + 1
        named[f"{kind}/{path}"] = variable.value
    return named


def require_equal_shapes(path: str, variables: dict, prefix: str = "") -> None:
    """Compares names and shapes before anything is restored.

    Raises:
        DamagedError: If the checkpoint cannot be read.
        RunError: If it belongs to another model.
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
    """Yields the run state in each readable checkpoint of a directory, newest first."""
    for path in saved(directory):
        with contextlib.suppress(DamagedError):
            yield recorded(path)


def recorded(path: str) -> dict[str, int | float]:
    """Returns the run state in a checkpoint: `checkpoint.new_state`, as numbers."""
    with readable(path):
        reader = tf.train.load_checkpoint(path)
        names = {_plain(name): name for name in reader.get_variable_to_shape_map()}
        return {
            name.removeprefix("state/"): reader.get_tensor(names[name]).item()
            for name in names
            if name.startswith("state/")
        }


def stored_digest(path: str, prefix: str) -> str:
    """Returns `digest_of` the stored variables whose names start with `prefix`."""
    with readable(path):
        reader = tf.train.load_checkpoint(path)
        names = {_plain(name): name for name in reader.get_variable_to_shape_map()}
        return _sha256(
            (name, reader.get_tensor(names[name]))
            for name in sorted(names)
            if name and name.startswith(prefix)
        )


def short(sha256: str) -> int:
    """Returns the start of a digest as a number that fits into int64."""
    return int(sha256[:14], 16)


def digest_of(variables: dict) -> str:
    """Returns the sha256 of name, type, shape and bytes of each variable, by name."""
    return _sha256((name, variables[name].numpy()) for name in sorted(variables))


def _sha256(values):
    """Returns the sha256 of pairs of names and arrays."""
    sha256 = hashlib.sha256()
    for name, value in values:
        sha256.update(f"{name} {value.dtype} {value.shape}\n".encode())
        sha256.update(value.tobytes())
    return sha256.hexdigest()


def _plain(name):
    """Returns the path of a variable in a checkpoint; empty for any other entry."""
    prefix, suffix = "variables/", "/.ATTRIBUTES/VARIABLE_VALUE"
    if not name.startswith(prefix):
        return ""
    return name.removeprefix(prefix).removesuffix(suffix).replace(".S", "/")
