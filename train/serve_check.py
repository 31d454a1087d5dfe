"""python -m train.serve_check: does an export answer, without any of our code?

    python -m train.serve_check runs/digits/export/1140

Looks at the files of a SavedModel before anything is loaded from them, then loads it in
a process of its own, in which keras, an_keras and model_zoo cannot be imported, and
checks

- files and operations: only those that computations on tensors need
  (`train/operations.py`); none that a server refuses, or that touches files or draws
  numbers;
- signatures: names, types and shapes; and the requests that warm a server up;
- batches of 1, 3 and 64 images: the same answer for an image in each of them;
- images as users send them (`train.odd_images`): a right answer or an error, and
  answers after an error;
- other formats in the directory: the same probabilities;
- the accuracy on the test images, where the export knows the one it was trained to.

A part that takes longer than `--time_limit`, or ends that process, is an error.
"""

import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from absl import flags

from train import command, paths
from train.command import RunError

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
        [sys.executable, "-m", "train.answers", arguments], stdout=subprocess.PIPE
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


def define_flags():
    paths.DEFINE_data_place()
    flags.DEFINE_integer(
        "time_limit", TIME_LIMIT, "Seconds that one part may take.", 1, 10**6
    )


def main(arguments):
    if len(arguments) != 1:
        raise command.UsageError(
            "Expected the directory of one SavedModel. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    values = flags.FLAGS
    path = pathlib.Path(paths.literal(arguments[0], "DIR"))
    for line in check(path, values.data_dir, values.data, values.time_limit):
        print(f"served   {line}", flush=True)


if __name__ == "__main__":
    command.run(main, define_flags)
