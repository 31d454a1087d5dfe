"""python -m train.prepare: prepares a data set for training.

    python -m train.prepare --data=imagenet2012 --data_dir=DIR --manual_dir=DIR

Features, archives and free space are checked before anything is written. If a
preparation was killed, the same command removes its leftovers and starts again. If a
data set is already prepared, its files are checked.
"""

from absl import flags

from train import cli, paths
from train.input import preparation


def define_flags():
    flags.DEFINE_string("data", None, "Name of the data set.")
    paths.DEFINE_data_dir()
    paths.DEFINE_path(
        "manual_dir", "Archives you downloaded; default: DATA_DIR/downloads/manual."
    )


def main(arguments):
    cli.no_arguments(arguments)
    cli.require("data")
    preparation.prepare(flags.FLAGS.data, flags.FLAGS.data_dir, flags.FLAGS.manual_dir)


if __name__ == "__main__":
    cli.run(main, define_flags)
