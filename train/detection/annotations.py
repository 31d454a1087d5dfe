"""Annotations in COCO's format: read, checked, and made usable for training.

https://cocodataset.org/#format-data
"""

import collections
import dataclasses
import json
import math
import numbers
import pathlib

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from train import paths
from train.cli import RunError
from train.input.image_files import USED

SHOWN = 3  # wrong entries that an error shows
LARGEST = 2**53  # numbers below are exact in JSON of any program
SHORTEST = 0.01  # pixels of a box with an extent
# Raised by Pillow for damaged images.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclasses.dataclass
class Annotations:
    """Annotations of a split, ready for training and evaluation.

    Attributes:
        images: Entries with `id`, `file_name`, `width`, `height`.
        objects: Annotations with `id`, `image_id`, `category_id`, `bbox`, `area`,
            `iscrowd`, `segmentation`. Boxes lie within their images, each object has a
            mask, and ids of categories are 1 to C in the order of the original ids.
        categories: Entries with `id` and `name`.
        changes: What was left out or changed, with its number.
    """

    images: list[dict]
    objects: list[dict]
    categories: list[dict]
    changes: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )

    def by_image(self) -> dict[int, list[dict]]:
        """Returns the objects of each image that has any."""
        groups = collections.defaultdict(list)
        for each in self.objects:
            groups[each["image_id"]].append(each)
        return groups

    def as_coco(self) -> dict:
        """Returns what a file in COCO's format contains."""
        return {
            "images": self.images,
            "annotations": self.objects,
            "categories": self.categories,
        }


def read(path: pathlib.Path, directory: pathlib.Path) -> Annotations:
    """Reads annotations and checks them against the images in a directory.

    Objects without extent or without a mask are left out and counted; boxes are cut off
    at the borders of their images. Images without objects stay. Only the headers of
    images are read.

    Raises:
        RunError: If the file is not in COCO's format, names unknown images or
            categories, or images are missing or have other sizes.
    """
    coco = _load(path)
    categories = _categories(coco, path)
    images = _unique(
        coco["images"],
        path,
        "images",
        {"file_name": _is_name, "width": _is_length, "height": _is_length},
    )
    if not categories or not images:
        raise RunError(
            f"{path} is empty. Expected images and categories. Received: "
            f"{len(images)} images and {len(categories)} categories."
        )
    _check_files(images.values(), path, directory)
    new_ids = {id_: number for number, id_ in enumerate(sorted(categories), start=1)}
    changes, objects = collections.Counter(), []
    for entry in coco["annotations"]:
        _check_object(entry, path, images, categories)
        found = _usable(entry, images[entry["image_id"]], changes, path)
        if found:
            # pycocotools takes id 0 for no object.
            ids = {"id": len(objects) + 1, "category_id": new_ids[entry["category_id"]]}
            objects.append({**ids, **found})
    keys = ("id", "file_name", "width", "height")
    return Annotations(
        [{key: image[key] for key in keys} for image in images.values()],
        objects,
        [{"id": new_ids[id_], "name": categories[id_]["name"]} for id_ in new_ids],
        changes,
    )


def class_names(path: pathlib.Path) -> dict[int, str]:
    """Returns the names of the categories in a file, by id.

    Raises:
        RunError: If the file is missing or not in COCO's format.
    """
    return {id_: each["name"] for id_, each in _categories(_load(path), path).items()}


def _categories(coco, path):
    return _unique(coco["categories"], path, "categories", {"name": _is_name})


def _load(path):
    paths.require_regular(path)
    try:
        coco = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(
            f"{path} is missing. Expected annotations in COCO's format."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not a JSON file: {error}.") from error
    for key in ("images", "annotations", "categories"):
        entries = coco.get(key) if isinstance(coco, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) for entry in entries
        ):
            raise RunError(
                f"{path} is not in COCO's format. Expected a list {key!r} of objects. "
                f"Received: {str(entries)[:100]}."
            )
    return coco


def _is_name(value):
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    is_line = len(value.splitlines()) == 1  # one line of labels.txt
    return is_line and value == value.encode(errors="replace").decode()


def _is_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_length(value):
    return _is_integer(value) and value > 0


def _is_number(value):
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and -LARGEST < value < LARGEST


def _unique(entries, path, kind, checks):
    """Returns entries by id."""
    by_id = {}
    for entry in entries:
        id_ = entry.get("id")
        if not _is_integer(id_) or not 0 <= id_ < LARGEST or id_ in by_id:
            raise _wrong(path, entry, f"{kind} with different integers from 0 as `id`")
        for key, is_right in checks.items():
            if not is_right(entry.get(key)):
                raise _wrong(path, entry, f"{kind} with a valid `{key}`")
        by_id[id_] = entry
    return by_id


def _wrong(path, entry, expected):
    return RunError(f"{path}: expected {expected}. Received: {str(entry)[:200]}.")


def _check_files(images, path, directory):
    missing, wrong, seen = [], [], set()
    for image in images:
        name = image["file_name"]
        parts = pathlib.PurePath(name)
        if parts.is_absolute() or ".." in parts.parts or parts in seen:
            raise _wrong(path, image, f"different files in {directory} or below")
        seen.add(parts)
        if not (directory / name).is_file():
            missing.append(name)
        elif problem := _problem(directory / name, image):
            wrong.append(f"{name} {problem}")
    for names, expected, received in (
        (missing, "all files that it names", "missing"),
        (wrong, "JPEG and PNG files of the sizes that it states", "different"),
    ):
        if names:
            raise RunError(
                f"{directory} does not match {path}. Expected {expected}. Received: "
                f"{len(names)} of {len(images)} are {received}: "
                f"{', '.join(names[:SHOWN])}."
            )


def _problem(file, image):
    try:
        with Image.open(file, formats=USED) as opened:
            received = opened.size
    except UNREADABLE:
        return "is not an image"
    if received != (image["width"], image["height"]):
        return "is {}x{}, not {}x{}".format(*received, image["width"], image["height"])
    return ""


def _check_object(entry, path, images, categories):
    for key, known in (("image_id", images), ("category_id", categories)):
        value = entry.get(key)
        if not _is_integer(value) or value not in known:
            raise _wrong(path, entry, f"annotations whose `{key}` is an id in the file")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _wrong(path, entry, "annotations with a `bbox` of four finite numbers")
    if entry.get("iscrowd", 0) not in (0, 1):
        raise _wrong(path, entry, "annotations whose `iscrowd` is 0 or 1")


def _usable(entry, image, changes, path):
    """Returns what is kept of an annotation but its own ids, or `None` for nothing."""
    width, height = image["width"], image["height"]
    box = _cut(entry["bbox"], width, height)
    if box is None:
        changes["left out: empty boxes"] += 1
        return None
    segmentation, area = _mask(entry, image, changes, path)
    if not area:
        changes["left out: objects without a mask"] += 1
        return None
    if box != entry["bbox"]:
        changes["boxes cut off at the border"] += 1
    given = entry.get("area", area)
    if not _is_number(given) or not 0 < given <= width * height:
        changes["areas replaced by those of the masks"] += 1
        given = area
    return {
        "image_id": entry["image_id"],
        "bbox": box,
        "area": given,
        "iscrowd": int(entry.get("iscrowd", 0)),
        "segmentation": segmentation,
    }


def _cut(box, width, height):
    """Returns the part of a box (x, y, width, height) in the image, or `None`."""
    result = []
    for start, length, limit in ((box[0], box[2], width), (box[1], box[3], height)):
        first, last = max(start, 0), min(start + length, limit)
        extent = length if (first, last) == (start, start + length) else last - first
        while extent > 0 and first + extent > limit:  # rounding
            extent = math.nextafter(extent, 0)
        if extent < SHORTEST:
            return None
        result.append((first, extent))
    (x, width), (y, height) = result
    return [x, y, width, height]


def _mask(entry, image, changes, path):
    """Returns a mask as Model Garden reads it, and its area in pixels.

    Polygons stay; a run-length encoding becomes a list of one, uncompressed, and the
    mask of a crowd is one without a list.
    """
    height, width = image["height"], image["width"]
    given = entry.get("segmentation")
    try:
        if isinstance(given, dict):
            encoded = _run_lengths(given, height, width)
        else:
            given = _polygons(given, max(height, width), changes)
            if not given:
                return None, 0
            encoded = coco_mask.merge(coco_mask.frPyObjects(given, height, width))
        area = int(coco_mask.area(encoded))
        if isinstance(given, list) and not entry.get("iscrowd"):
            return given, area
        plain = {"size": [height, width], "counts": _uncompressed(encoded)}
    except (TypeError, ValueError) as error:
        raise _wrong(
            path,
            entry,
            "a `segmentation` of polygons [x1, y1, ...] or run lengths of the image's "
            f"size ({error})",
        ) from error
    return plain if entry.get("iscrowd") else [plain], area


def _polygons(given, side, changes):
    """Returns the polygons that have at least three corners."""
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(each, list) for each in given):
        raise ValueError("neither a list of polygons nor run lengths")
    for polygon in given:
        if len(polygon) % 2 or not all(map(_is_number, polygon)):
            raise ValueError("a polygon is not pairs of finite numbers")
        if any(not -side <= value <= 2 * side for value in polygon):
            raise ValueError("a polygon is far outside the image")
    polygons = [polygon for polygon in given if len(polygon) >= 6]
    if polygons and len(polygons) < len(given):
        changes["left out: polygons with fewer than three corners"] += 1
    return polygons


def _run_lengths(given, height, width):
    counts = given.get("counts")
    if given.get("size") != [height, width]:
        raise ValueError(f"the size is not {[height, width]}")
    if isinstance(counts, str):
        encoded = {"size": [height, width], "counts": counts.encode("ascii")}
        # Runs that end before the image does leave pixels undefined.
        if coco_mask.encode(coco_mask.decode(encoded))["counts"] != encoded["counts"]:
            raise ValueError("the counts are damaged")
        return encoded
    if not isinstance(counts, list) or not all(
        _is_integer(count) and count >= 0 for count in counts
    ):
        raise ValueError("the counts are neither text nor integers from 0")
    if sum(counts) != height * width:
        raise ValueError(f"the counts do not sum to {height * width}")
    return coco_mask.frPyObjects(given, height, width)


def _uncompressed(encoded):
    flat = coco_mask.decode(encoded).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(edges, prepend=0, append=flat.size).tolist()
