"""python -m train.detection.predict: objects in images, by an exported detector.

    python -m train.detection.predict runs/detection/model/export/3000 image.jpg \\
        --out=predictions

prints a line for each object: image, class, score, and the box (x, y, width, height) in
pixels. `--out` is a new directory for pictures with boxes, masks, names and scores.
"""

import pathlib

from absl import flags

from train import cli, paths, tables

COLUMNS = ("image", "class", "score", "x", "y", "width", "height")


def define_flags():
    paths.DEFINE_path("out", "New directory for pictures.", paths.literal)
    flags.DEFINE_float("least", 0.3, "Score from which objects are shown.", 0, 1)


def main(arguments):
    if len(arguments) < 2:
        raise cli.UsageError(
            "Expected the directory of an export, and images. "
            f"Received: {' '.join(arguments) or 'none'}."
        )
    export, *images = map(pathlib.Path, arguments)
    out = flags.FLAGS.out and pathlib.Path(flags.FLAGS.out)
    if not (export / "saved_model.pb").is_file():
        raise cli.UsageError(f"Expected an export. Received: {export}.")
    for image in images:
        if not image.is_file():
            raise cli.UsageError(f"Expected images. Received: {image}.")
    if out and out.exists():
        raise cli.UsageError(f"Expected --out to be new. Received: {out}, which is.")
    with cli.imports():
        from train.detection import drawing

    detector = drawing.Detector(export, flags.FLAGS.least)
    rows = []
    if out:
        out.mkdir(parents=True)
    for number, path in enumerate(images, start=1):
        found = detector.detect(path)
        rows += [(str(path), *row) for row in found.rows()]
        if out:
            found.picture().save(out / f"{number:04d}-{path.stem}.png")
    print(*tables.aligned([COLUMNS, *rows]), sep="\n")


if __name__ == "__main__":
    cli.run(main, define_flags)
