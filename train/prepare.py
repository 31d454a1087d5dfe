"""python -m train.prepare: gets a data set ready for training.

    python -m train.prepare --data=imagenet2012 --data_dir=DIR --manual_dir=DIR

Features, archives and free space are checked before anything is written. A preparation
that was killed starts again with the same command, which removes what is left of it. Of
a data set that is prepared the files are checked.
"""

from absl import flags

from train import cli, paths
from train.input import preparation


def define_flags():
    flags.DEFINE_string("data", None, "Name of the data set.", required=True)
    paths.DEFINE_data_dir()
    paths.DEFINE_path(
        "manual_dir", "Archives you downloaded; DATA_DIR/downloads/manual."
    )


def main(arguments):
    cli.no_arguments(arguments)
    preparation.prepare(flags.FLAGS.data, flags.FLAGS.data_dir, flags.FLAGS.manual_dir)


if __name__ == "__main__":
    cli.run(main, define_flags)
