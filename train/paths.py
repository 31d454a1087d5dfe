"""Path arguments of commands: expands `~` and rejects patterns of TensorFlow.

TensorFlow reads the path of a checkpoint or a SavedModel as a pattern of file names:
it would not find `runs/lr[1]`, and would delete checkpoints of `runs/lr1` instead.
"""

import os
import stat
import unicodedata

from absl import flags

from train.cli import RunError, UsageError

flags.disclaim_key_flags()  # they belong to the command that defines them
PATTERN = "*?[]\\"
NAME_BYTES, PATH_BYTES = 255, 4095


def expand(text: str, name: str) -> str:
    """Replaces `~` and `~user` in a path with the home directory, as shells do.

    Args:
        text: The path.
        name: Name of the flag, field or argument, for the error.

    Raises:
        UsageError: If no file on this machine can have this path, or it cannot be shown
            on one line.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise _error(name, "start with the home directory of an existing user", text)
    return _require_path(path, name)


def require_literal(path: str | os.PathLike, name: str) -> None:
    """Checks that TensorFlow reads and writes exactly this path, not a pattern.

    Raises:
        UsageError: If it is a pattern for TensorFlow, or not a path at all.
    """
    path = _require_path(os.fspath(path), name)
    if any(character in PATTERN for character in path):
        expected = (
            f"not contain {' '.join(PATTERN)}, which TensorFlow reads as patterns"
        )
        raise _error(name, expected, path)


def literal(text: str, name: str) -> str:
    """Expands a path that TensorFlow must not read as a pattern.

    Raises:
        UsageError: If it is a pattern, or no file on this machine can have this path.
    """
    path = expand(text, name)
    require_literal(path, name)
    return path


def output(text: str, name: str) -> str:
    """Expands the path of a file to be written when the work is done.

    Raises:
        UsageError: If it could not be written, or no file on this machine can have this
            path.
    """
    path = expand(text, name)
    is_other = os.path.exists(path) and not os.path.isfile(path)
    if is_other or not os.path.isdir(os.path.dirname(path) or "."):
        raise _error(name, "be a file in an existing directory", text)
    return path


def require_regular(path: str | os.PathLike) -> None:
    """Checks that a file, if it exists, is not a pipe, a device or a directory.

    Raises:
        RunError: If it is not a regular file.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        mode = os.stat(path).st_mode
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise RunError(f"Expected {path} to be a regular file. Received: {kind}.")


def _require_path(path, name):
    kinds = {unicodedata.category(character) for character in path}
    encoded = path.encode(errors="surrogatepass")
    for is_wrong, expected in (
        (not path, "not be empty"),
        ("Cc" in kinds, "not contain control characters"),
        ("Cs" in kinds, "be UTF-8"),
        ("://" in path, "be a path on this machine (mount remote storage)"),
        (
            len(encoded) > PATH_BYTES
            or max(map(len, encoded.split(b"/"))) > NAME_BYTES,
            f"have at most {NAME_BYTES} bytes in a name and {PATH_BYTES} in total",
        ),
    ):
        if is_wrong:
            raise _error(name, expected, path)
    return path


def _error(name, expected, received):
    return UsageError(f"The path {name} must {expected}. Received: {received!r}.")


class _Parser(flags.ArgumentParser):
    """Parses the path flag `name` with the function `check`."""

    syntactic_help = "a path"

    def __init__(self, check, name):
        self._check, self._name = check, name

    def parse(self, argument):
        return self._check(argument, f"--{self._name}")

    def flag_type(self):
        return "path"


def DEFINE_path(name, description, check=expand):
    """Defines a flag that holds a path, as returned by `check`."""
    parser = _Parser(check, name)
    flags.DEFINE(parser, name, None, description, serializer=flags.ArgumentSerializer())


def DEFINE_data_place():
    """Defines --data and --data_dir for commands that read the data set of a run."""
    flags.DEFINE_string(
        "data", None, "Current location of the run's data set, if it has moved."
    )
    DEFINE_data_dir()


def DEFINE_data_dir():
    """Defines --data_dir, which may be cloud storage: tensorflow-datasets reads it."""

    def check(text, name):
        return text if "://" in text else expand(text, name)

    DEFINE_path(
        "data_dir", "Directory in which tensorflow-datasets keeps its files.", check
    )
