"""python -m train.detection.predict: objects in images, by an exported detector.

    python -m train.detection.predict runs/detection/model/export/3000 image.jpg \\
        --out=pictures

prints a line for each object: image, class, score, and the box (x, y, width, height) in
pixels. `--out` is a new directory for pictures with boxes, masks, names and scores. The
first image that cannot be read ends the command, after the lines of those before it.
"""

import pathlib

from absl import flags

from train import cli, paths, tables

COLUMNS = ("image", "class", "score", "x", "y", "width", "height")
NOTHING = ("-",) * (len(COLUMNS) - 1)  # of an image in which nothing was found


def define_flags():
    paths.DEFINE_path("out", "New directory for pictures.", paths.literal)
    paths.DEFINE_path("csv", "Also writes the objects to this file.", paths.output)
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

    detector = drawing.Export(export, flags.FLAGS.least)
    rows = []
    if out:
        out.mkdir(parents=True)
    try:
        for number, path in enumerate(images, start=1):
            found = detector.detect(path)
            rows += [(str(path), *row) for row in found.rows() or [NOTHING]]
            if out:
                found.picture().save(out / f"{number:04d}-{path.stem}.png")
    finally:
        print(*tables.aligned([COLUMNS, *rows]), sep="\n")
    if flags.FLAGS.csv:
        listed = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
        tables.write_csv(pathlib.Path(flags.FLAGS.csv), listed, COLUMNS)


if __name__ == "__main__":
    cli.run(main, define_flags)
