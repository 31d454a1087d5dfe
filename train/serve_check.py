"""python -m train.serve_check: checks that an export runs without any of our code.

    python -m train.serve_check runs/digits/export/1140

Inspects the files of a SavedModel before loading anything from them, then loads it in a
separate process in which keras, an_keras and model_zoo cannot be imported. Checks

- files and operations: it may hold only those that computations on tensors need
  (`train/export/operations.py`), none that a server refuses, and none that access files
  or draw random numbers;
- signatures: names, types and shapes; and the warm-up requests of a server;
- batches of 1, 3 and 64 images: an image must get the same answer in each of them;
- unusual images (`train.export.odd_images`): each must get a correct answer or an
  error, and good images must be answered after an error;
- other formats in the directory: they must give the same probabilities;
- the accuracy on the test images, if the export records the accuracy after training.

It is an error if a part takes longer than `--time_limit` or crashes that process.
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
