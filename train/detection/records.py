"""Images and annotations as TFRecords, written by Model Garden's converter."""

import functools
import math
import os
import pathlib
import shutil

import tensorflow as tf
from google.protobuf.message import DecodeError
from official.vision.data import create_coco_tf_record, tfrecord_lib
from PIL import Image

from train import files
from train.cli import RunError
from train.detection.annotations import UNREADABLE, Annotations

PER_FILE = 500  # images in a file of records
FILES = 256  # at most


def write(
    annotations: Annotations,
    images: pathlib.Path,
    out: pathlib.Path,
    split: str,
    processes: int = 1,
) -> int:
    """Writes `OUT/SPLIT-00000-of-00001.tfrecord` and so on.

    They are complete, and checked, before they have these names, and replace others of
    this split. Returns their number.

    Args:
        annotations: What to write.
        images: Directory of the image files.
        out: Existing directory for the records.
        split: How their names begin.
        processes: Number of processes that read images and encode masks.

    Raises:
        RunError: If an image is damaged, the disk is full, or the records are not as
            expected.
    """
    aside = out / f"{split}{files.WRITING}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    objects = annotations.by_image()
    names = {each["id"]: each["name"] for each in annotations.categories}
    try:
        tfrecord_lib.write_tf_record_dataset(
            str(aside / split),
            ((image, objects.get(image["id"])) for image in annotations.images),
            functools.partial(_example, images, names),
            num_shards=min(FILES, math.ceil(len(annotations.images) / PER_FILE)),
            multiple_processes=processes if processes > 1 else 0,
            unpack_arguments=False,  # otherwise all records are held in memory
        )
        count = check(annotations, aside, split)
        for file in record_files(out, split):
            file.unlink()
        for file in aside.iterdir():
            os.replace(file, out / file.name)
    except tf.errors.OpError as error:
        raise RunError(f"Cannot write records to {out}: {error.message}.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return count


def record_files(directory: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Returns the files with records of a split."""
    number = "[0-9]" * 5
    return sorted(directory.glob(f"{split}-{number}-of-{number}.tfrecord"))


def _example(images, names, entry):
    image, objects = entry
    path = images / image["file_name"]
    try:
        with Image.open(path) as opened:
            opened.load()
    except UNREADABLE as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    return create_coco_tf_record.create_tf_example(
        image,
        [str(images)],
        bbox_annotations=objects,
        id_to_name_map=names,
        include_masks=True,
    )


def check(annotations: Annotations, directory: pathlib.Path, split: str) -> int:
    """Reads the records of a split, compares them, and returns the number of files.

    Raises:
        RunError: If a file is damaged, or images, boxes or masks are missing or too
            many.
    """
    objects = annotations.by_image()
    expected = {
        str(image["id"]): len(objects.get(image["id"], ()))
        for image in annotations.images
    }
    found, paths = set(), record_files(directory, split)
    for path in paths:
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                name, boxes, masks = _counts(record)
                if name in found:
                    raise RunError(
                        f"{path} does not match the annotations. Expected each image "
                        f"once. Received: image {name} again."
                    )
                if boxes != expected.get(name) or masks != boxes:
                    raise RunError(
                        f"{path} does not match the annotations. Expected for image "
                        f"{name}: {expected.get(name, 'not to be there')}. Received: "
                        f"{boxes} boxes and {masks} masks."
                    )
                found.add(name)
        except (tf.errors.OpError, DecodeError, IndexError) as error:
            raise RunError(
                f"{path} is damaged after image {len(found)}: {error}."
            ) from error
    if len(found) != len(expected):
        raise RunError(
            f"{directory} does not match the annotations. Expected {len(expected)} "
            f"images in {split}-*.tfrecord. Received: {len(found)}."
        )
    return len(paths)


def _counts(record):
    """Returns the id, the number of boxes and that of masks of an image."""
    features = tf.train.Example.FromString(record).features.feature
    return (
        features["image/source_id"].bytes_list.value[0].decode(),
        len(features["image/object/bbox/xmin"].float_list.value),
        len(features["image/object/mask"].bytes_list.value),
    )
