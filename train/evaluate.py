"""python -m train.evaluate: accuracies of a run's best weights.

    python -m train.evaluate --workdir=runs/digits --split=validation

Training reads the test images once, at its end; this command reads them again.
"""

import pathlib

import tensorflow as tf
from absl import flags

from train import cli, paths
from train.engine import models, run_directory, trainer


def define_flags():
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal, required=True)
    flags.DEFINE_enum(
        "split", "test", ("train", "validation", "test"), "Images to evaluate on."
    )
    paths.DEFINE_data_place()
    flags.DEFINE_integer("batch_size", 256, "Images per step.", 1, 2**24)


def main(arguments):
    cli.no_arguments(arguments)
    values = flags.FLAGS
    workdir = pathlib.Path(values.workdir)
    spec = run_directory.read_spec(workdir)
    data = spec.load_data(values.data_dir, values.data)
    model, _, step = models.load_best(workdir)
    evaluator = trainer.Evaluator(
        tf.distribute.get_strategy(), model, data, values.split, values.batch_size
    )
    metrics = "  ".join(f"{k} {v:.4f}" for k, v in evaluator.run().items())
    count = len(data.splits[values.split])
    print(f"{values.split}  {metrics}  ({count} images, step {step})")


if __name__ == "__main__":
    cli.run(main, define_flags)
