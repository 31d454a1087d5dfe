"""Checks an export in a separate process (`train.export.answers`)."""

import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from train import paths
from train.cli import RunError

TIME_LIMIT = 600  # seconds for a part, or for a batch of test images


def check(
    path: pathlib.Path,
    data_dir: str | None = None,
    place: str | None = None,
    time_limit: int = TIME_LIMIT,
) -> Iterator[str]:
    """Checks an export in another process; yields a line for each check that passes.

    Args:
        path: Directory of the export.
        data_dir: Directory in which tensorflow-datasets keeps its files. `None`
            selects the default.
        place: Current location of the run's data set. `None` if it has not moved.
        time_limit: Seconds that a part of the check may take.

    Raises:
        UsageError: If TensorFlow would read its path as a pattern.
        RunError: If it is not an export of `train.export`, its answers are wrong, it
            takes too long, or it crashes the process.
    """
    paths.require_literal(path, "path")
    arguments = json.dumps([str(path), data_dir, place, time_limit])
    part = "start"
    with subprocess.Popen(
        [sys.executable, "-m", "train.export.answers", arguments],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            for message in map(json.loads, process.stdout):
                part = message.get("part", part)
                if "error" in message:
                    raise RunError(message["error"])
                if "line" in message:
                    yield message["line"]
        except BaseException:  # also when the caller closes the generator
            process.kill()
            raise
    if process.returncode == -signal.SIGALRM:
        raise RunError(
            f"{path} takes too long in the part '{part}'. Expected at most "
            f"{time_limit} seconds, or a larger --time_limit. Received: no result."
        )
    if process.returncode:
        raise RunError(
            f"{path} ended the process of the check in the part '{part}'. Expected "
            f"answers. Received: {_end(process.returncode)}."
        )


def _end(code):
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
