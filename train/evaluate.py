"""python -m train.evaluate: what a run's best weights get right and wrong.

    python -m train.evaluate --workdir=runs/digits --split=validation --out=DIR

Prints loss and accuracies, the accuracy of each class, the confusion matrix (of many
classes, the most frequent confusions) and misclassified images. With `--out`, also
writes `classes.csv`, `confusion.csv`, `confusion.png` and `wrong.csv`, with everything.

Training reads the test images once, at its end; this command reads them again.
"""

import pathlib

import tensorflow as tf
from absl import flags

from train import cli, paths, tables
from train.engine import mistakes, models, run_directory, trainer


def define_flags():
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal)
    flags.DEFINE_enum(
        "split", "test", ("train", "validation", "test"), "Images to evaluate on."
    )
    paths.DEFINE_path("out", "Directory for tables and a plot of all answers.")
    paths.DEFINE_data_place()
    flags.DEFINE_integer("batch_size", 256, "Images per step.", 1, 2**24)


def main(arguments):
    cli.no_arguments(arguments)
    cli.require("workdir")
    values = flags.FLAGS
    workdir = pathlib.Path(values.workdir)
    spec = run_directory.read_spec(workdir)
    data = spec.load_data(values.data_dir, values.data)
    model, _, step = models.load_best(workdir)
    out = values.out and pathlib.Path(values.out)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    evaluator = trainer.RecordingEvaluator(
        tf.distribute.get_strategy(), model, data, values.split, values.batch_size
    )
    metrics = "  ".join(f"{k} {v:.4f}" for k, v in evaluator.run().items())
    split = data.splits[values.split]
    print(f"{values.split}  {metrics}  ({len(split)} images, step {step})")
    answers = mistakes.Answers(data.class_names, split.names(), *evaluator.answers)
    print(*mistakes.summary(answers), sep="\n")
    if out:
        mistakes.write(answers, out)
        print(f"\nfiles in {tables.printable(str(out))}")


if __name__ == "__main__":
    cli.run(main, define_flags)
