"""An export checked in a process of its own (`train.export.answers`)."""

import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from train import paths
from train.cli import RunError

TIME_LIMIT = 600  # seconds; of a part, or of a batch of test images


def check(
    path: pathlib.Path,
    data_dir: str | None = None,
    place: str | None = None,
    time_limit: int = TIME_LIMIT,
) -> Iterator[str]:
    """Checks an export in another process; yields a line about what was right.

    Args:
        path: of the export.
        data_dir: where tensorflow-datasets keeps its files; `None`: its default.
        place: where the data set of the run lies now; `None`: where it lay then.
        time_limit: seconds that a part of the check may take.

    Raises:
        UsageError: TensorFlow would read its path as a pattern.
        RunError: it is no export of ours, it answers otherwise than it should, takes
            too long or ends the process.
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
        except BaseException:  # also where nobody asks for the next line
            process.kill()
            raise
    if process.returncode == -signal.SIGALRM:
        raise RunError(
            f"{path} takes too long in its {part}. Expected an end within "
            f"{time_limit} seconds, or a larger --time_limit. Received: none."
        )
    if process.returncode:
        raise RunError(
            f"{path} ended the process that checks it in its {part}. Expected answers. "
            f"Received: {_end(process.returncode)}."
        )


def _end(code):
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
