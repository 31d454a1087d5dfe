"""Files that are written completely or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO

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
