"""Paths as commands take them: `~`, and what TensorFlow would read as a pattern.

TensorFlow takes the path of a checkpoint or a SavedModel for a pattern of file names:
it would not find `runs/lr[1]`, and delete checkpoints of `runs/lr1` in its place.
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
    """A path with `~` and `~user` replaced by the home directory, as shells do it.

    Args:
        text: the path.
        name: of the flag, field or argument, for the error.

    Raises:
        UsageError: no file of this machine can have this path, or no line can show it.
    """
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise _error(name, "begin with the home directory of somebody", text)
    return _require_path(path, name)


def require_literal(path: str | os.PathLike, name: str) -> None:
    """That TensorFlow reads and writes this path itself, not others like it.

    Raises:
        UsageError: it is a pattern for TensorFlow, or no path at all.
    """
    path = _require_path(os.fspath(path), name)
    if any(character in PATTERN for character in path):
        expected = (
            f"have none of {' '.join(PATTERN)}, which TensorFlow reads as patterns"
        )
        raise _error(name, expected, path)


def literal(text: str, name: str) -> str:
    """`expand` for paths that TensorFlow must not read as patterns.

    Raises:
        UsageError: it would, or no file of this machine can have this path.
    """
    path = expand(text, name)
    require_literal(path, name)
    return path


def output(text: str, name: str) -> str:
    """`expand` for a file to be written when the work is done.

    Raises:
        UsageError: it could not be, or no file of this machine can have this path.
    """
    path = expand(text, name)
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise _error(name, "be a file in a directory that exists", text)
    return path


def require_regular(path: str | os.PathLike) -> None:
    """That a file, if there is one, can be read to its end: no pipe and no device.

    Raises:
        RunError: it is something else.
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
        ("Cc" in kinds, "have no control characters"),
        ("Cs" in kinds, "be UTF-8"),
        ("://" in path, "be a path of this machine, where others can be mounted"),
        (
            len(encoded) > PATH_BYTES
            or max(map(len, encoded.split(b"/"))) > NAME_BYTES,
            f"have at most {NAME_BYTES} bytes in a name and {PATH_BYTES} in all",
        ),
    ):
        if is_wrong:
            raise _error(name, expected, path)
    return path


def _error(name, expected, received):
    return UsageError(f"The path {name} must {expected}. Received: {received!r}.")


class _Parser(flags.ArgumentParser):
    """Args: the function that checks a path, and the name of the flag."""

    syntactic_help = "a path"

    def __init__(self, check, name):
        self._check, self._name = check, name

    def parse(self, argument):
        return self._check(argument, f"--{self._name}")

    def flag_type(self):
        return "path"


def DEFINE_path(name, description, check=expand, required=False):
    """A flag that holds a path, as `check` returns it."""
    parser = _Parser(check, name)
    flags.DEFINE(parser, name, None, description, required=required)


def DEFINE_data_place():
    """--data and --data_dir of commands that look for the data set of a run."""
    flags.DEFINE_string(
        "data", None, "Where the data set of the run lies now, if it has moved."
    )
    DEFINE_data_dir()


def DEFINE_data_dir():
    """--data_dir, which may lie in a cloud: tensorflow-datasets reads it from there."""

    def check(text, name):
        return text if "://" in text else expand(text, name)

    DEFINE_path("data_dir", "Where tensorflow-datasets keeps its files.", check)
