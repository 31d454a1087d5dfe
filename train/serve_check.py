"""python -m train.serve_check: does an export answer, without any of our code?

    python -m train.serve_check runs/digits/export/1140

Looks at the files of a SavedModel before anything is loaded from them, then loads it in
a process of its own, in which keras, an_keras and model_zoo cannot be imported, and
checks

- files and operations: only those that computations on tensors need
  (`train/export/operations.py`); none that a server refuses, or that touches files or
  draws numbers;
- signatures: names, types and shapes; and the requests that warm a server up;
- batches of 1, 3 and 64 images: the same answer for an image in each of them;
- images as users send them (`train.export.odd_images`): a right answer or an error, and
  answers after an error;
- other formats in the directory: the same probabilities;
- the accuracy on the test images, where the export knows the one it was trained to.

A part that takes longer than `--time_limit`, or ends that process, is an error.
"""

import pathlib

from absl import flags

from train import cli, paths
from train.export import check


def define_flags():
    paths.DEFINE_data_place()
    flags.DEFINE_integer(
        "time_limit", check.TIME_LIMIT, "Seconds that one part may take.", 1, 10**6
    )


def main(arguments):
    if len(arguments) != 1:
        raise cli.UsageError(
            "Expected the directory of one SavedModel. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    values = flags.FLAGS
    path = pathlib.Path(paths.literal(arguments[0], "DIR"))
    for line in check.check(path, values.data_dir, values.data, values.time_limit):
        print(f"served   {line}", flush=True)


if __name__ == "__main__":
    cli.run(main, define_flags)
