"""python -m train.predict: prints class names and scores for images.

    python -m train.predict runs/digits image.png photos/ 'more/*.jpg'

They are computed by the newest export of a run, or by the export whose directory is
given. A directory stands for the JPEG and PNG files in it and below, recognized by
their content. Each image has a line: its path, then the most probable classes with
their scores. The first image that the export does not accept ends the command.
"""

import pathlib
import sys

import tqdm
from absl import flags

from train import cli, paths
from train.export import runtimes
from train.input import image_files


def define_flags():
    paths.DEFINE_path("csv", "Also writes the answers to this file.", paths.output)
    paths.DEFINE_path("json", "Also writes the answers to this file.", paths.output)


def main(arguments):
    if len(arguments) < 2:
        raise cli.UsageError(
            "Expected a run and at least one image. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    run, *images = arguments
    workdir = pathlib.Path(paths.literal(run, "RUN"))
    files, left_out = image_files.find(images)
    export = runtimes.newest_export(workdir)
    if left_out:
        print(f"left out: {left_out}", file=sys.stderr)

    with cli.imports():  # of TensorFlow: errors above are reported at once
        from train.export import predictions

    model = predictions.load(export)
    answers = []
    try:
        for file in tqdm.tqdm(files, unit="image", leave=False, disable=None):
            answers.append((file, predictions.predict(model, file)))
    finally:
        for line in predictions.lines(answers):
            print(line)
    for path, write in (
        (flags.FLAGS.csv, predictions.write_csv),
        (flags.FLAGS.json, predictions.write_json),
    ):
        if path:
            write(pathlib.Path(path), answers)


if __name__ == "__main__":
    cli.run(main, define_flags)
