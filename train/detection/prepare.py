"""python -m train.detection.prepare: COCO's files -> records for training.

    python -m train.detection.prepare --coco=DIR --out=coco

DIR holds what the archives of https://cocodataset.org contain, or `scenes` writes:
images in `SPLIT/`, annotations in `annotations/instances_SPLIT.json`. All is checked
before anything is written, and counted afterwards:

    OUT/SPLIT-00000-of-00237.tfrecord ...   images, boxes and masks
    OUT/instances_SPLIT.json                the same annotations, for evaluation

Categories are numbered from 1 without gaps; 0 is the background. A split that is there
already is checked.
"""

import itertools
import json
import os
import pathlib
import re

from absl import flags

from train import cli, files, paths

TRAINED = 100  # `max_num_instances` of Model Garden's parser


def define_flags():
    paths.DEFINE_path("coco", "Directory of images and annotations.")
    paths.DEFINE_path("out", "Directory of the records.", paths.literal)
    flags.DEFINE_list("splits", ["train2017", "val2017"], "Splits to prepare.")
    flags.DEFINE_integer(
        "processes", os.cpu_count(), "Processes that encode masks.", 1, 1024
    )


def main(arguments):
    cli.no_arguments(arguments)
    cli.require("coco")
    cli.require("out")
    source, out = pathlib.Path(flags.FLAGS.coco), pathlib.Path(flags.FLAGS.out)
    splits = flags.FLAGS.splits
    is_valid = all(re.fullmatch(r"[\w-]+", split) for split in splits)
    if not splits or not is_valid or len({*splits}) < len(splits):
        raise cli.UsageError(
            "Expected different names of letters, digits, - and _ in --splits. "
            f"Received: {','.join(splits)}."
        )

    from train.detection import annotations  # takes a second

    read = {}
    for split in splits:
        file = source / "annotations" / f"instances_{split}.json"
        read[split] = annotations.read(file, source / split)
        report(split, read[split])
    require_same_categories(read)

    with cli.imports():  # of TensorFlow: errors above are reported at once
        from train.detection import records

    out.mkdir(parents=True, exist_ok=True)
    with cli.lock(out, "is preparing"):
        for split, wanted in read.items():
            path = out / f"instances_{split}.json"
            text = json.dumps(wanted.as_coco())
            if not path.exists():
                count = records.write(
                    wanted, source / split, out, split, flags.FLAGS.processes
                )
                with files.replaced(path) as file:
                    file.write(text)
            elif path.read_bytes() == text.encode():
                count = records.check(wanted, out, split)
            else:
                raise cli.RunError(
                    f"{path} has other annotations. Expected those of {source}, or no "
                    f"such file, after which {split} is prepared again. Received: a "
                    "different or damaged file."
                )
            print(f"{split}  ready in {out}, files: {count}", flush=True)
    classes = len(wanted.categories) + 1
    print(f"train with: task.model.num_classes={classes}, which counts the background")


def require_same_categories(read) -> None:
    """Checks that all splits have the same categories.

    Raises:
        RunError: If they differ; the message names the first difference.
    """
    first, *others = read
    for split in others:
        pairs = itertools.zip_longest(read[first].categories, read[split].categories)
        for pair in pairs:
            if pair[0] != pair[1]:
                raise cli.RunError(
                    "The splits have different categories. Expected the same names in "
                    f"the same order. Received: {pair[0]} in {first}, {pair[1]} in "
                    f"{split}."
                )


def report(split, read) -> None:
    """Prints what a split has, and what was changed."""
    crowds = sum(each["iscrowd"] for each in read.objects)
    by_image = read.by_image()
    most = max(map(len, by_image.values()), default=0)
    print(
        f"{split}  {len(read.images):,} images, {len(read.images) - len(by_image):,} "
        f"without objects; {len(read.objects):,} objects, {crowds:,} of them crowds, "
        f"up to {most:,} in an image; {len(read.categories):,} categories"
    )
    if most > TRAINED:
        print(f"{split}  of an image, only the first {TRAINED} objects are trained on")
    for change, count in sorted(read.changes.items()):
        print(f"{split}  {change}: {count:,}")


if __name__ == "__main__":
    cli.run(main, define_flags)
