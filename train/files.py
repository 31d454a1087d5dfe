"""Files and directories that are written completely or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO

from train import cli

WRITING = ".writing"  # suffix of a file that is not complete yet


@contextlib.contextmanager
def replaced(path: pathlib.Path, mode: str = "w", **options) -> Iterator[IO]:
    """Context of a file that replaces `path` once it is complete.

    If writing fails, or this process is killed, `path` stays as it was; a kill leaves
    the incomplete file beside it. A link is replaced, not followed.

    Args:
        path: Path of the file.
        mode: `"w"` for text, `"wb"` for bytes.
        **options: Arguments of `open`, such as `newline`.
    """
    aside = path.with_name(f"{path.name}{WRITING}")
    try:
        with aside.open(mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def new_version(version: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context of a directory that becomes `version` once it is complete.

    Yields:
        The path at which to create the directory. What is written beside it is removed.

    Raises:
        RunError: If the version exists, or another process writes one beside it.
    """
    out, parent = version.parent, version.with_name(f".writing-{version.name}")
    require_new(version)
    out.mkdir(parents=True, exist_ok=True)
    with cli.lock(out, "is exporting to"):
        require_new(version)
        for left in out.glob(".writing-*"):  # by processes that were killed
            shutil.rmtree(left, ignore_errors=True)
        try:
            parent.mkdir()
            yield parent / version.name
            os.rename(parent / version.name, version)
        finally:
            shutil.rmtree(parent, ignore_errors=True)


def require_new(version: pathlib.Path) -> None:
    """Checks that a version does not exist yet; raises `RunError`."""
    if version.exists():
        raise cli.RunError(
            f"{version} already exists. Expected a new version, or another --out."
        )
