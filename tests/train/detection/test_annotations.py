"""Annotations in COCO's format: what is kept, cut off, left out or refused."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from train.cli import RunError
from train.detection import annotations

WIDTH, HEIGHT = 20, 10
SQUARE = [[2, 1, 8, 1, 8, 7, 2, 7]]


def annotation(**changes):
    entry = {
        **{"id": 1, "image_id": 7, "category_id": 30, "iscrowd": 0},
        **{"bbox": [2, 1, 6, 6], "area": 36, "segmentation": SQUARE},
    }
    return {**entry, **changes}


@pytest.fixture
def read(tmp_path):
    """Writes images and annotations, and reads them."""

    def read(*objects, images=None, categories=None, write=json.dumps):
        images = images or [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 9, "file_name": "größe 猫.jpg", "width": WIDTH, "height": HEIGHT},
        ]
        for name in ("a.png", "größe 猫.jpg"):
            Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name)
        categories = categories or [{"id": 30, "name": "猫"}, {"id": 4, "name": "dog"}]
        path = tmp_path / "instances.json"
        coco = {
            **{"images": images, "annotations": list(objects)},
            "categories": categories,
        }
        path.write_text(write(coco))
        return annotations.read(path, tmp_path)

    return read


def pixels(segmentation):
    """The mask of an annotation, read as pycocotools does."""
    encoded = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    if isinstance(encoded, list):
        encoded = coco_mask.merge(encoded)
    return coco_mask.decode(encoded)


def run_lengths(mask, compressed=True):
    encoded = coco_mask.encode(np.asfortranarray(mask))
    counts = encoded["counts"].decode()
    if not compressed:
        flat = mask.ravel(order="F")
        edges = [0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]
        counts = [int(b - a) for a, b in zip(edges, edges[1:], strict=False)]
        counts = [0, *counts] if flat[0] else counts
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def test_ids_of_categories_have_no_gaps(read):
    found = read(annotation(), annotation(category_id=4))
    assert found.categories == [{"id": 1, "name": "dog"}, {"id": 2, "name": "猫"}]
    assert [each["category_id"] for each in found.objects] == [2, 1]
    assert [each["id"] for each in found.objects] == [1, 2]


def test_images_without_objects_stay(read):
    found = read(annotation())
    assert [each["id"] for each in found.images] == [7, 9]
    assert [*found.by_image()] == [7]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("is_crowd", [0, 1])
@pytest.mark.parametrize("first", [0, 1])
def test_run_lengths_keep_their_pixels(read, compressed, is_crowd, first):
    mask = (np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4).astype(np.uint8)
    mask[0, 0] = first
    given = run_lengths(mask, compressed)
    (found,) = read(annotation(segmentation=given, iscrowd=is_crowd)).objects
    assert isinstance(found["segmentation"], dict if is_crowd else list)
    np.testing.assert_array_equal(pixels(found["segmentation"]), mask)


def test_polygons_of_crowds_become_run_lengths(read):
    (found,) = read(annotation(iscrowd=1)).objects
    np.testing.assert_array_equal(pixels(found["segmentation"]), pixels(SQUARE))
    assert isinstance(found["segmentation"]["counts"], list)


def test_boxes_are_cut_off_at_the_border(read):
    found = read(annotation(bbox=[-2, 4, 7.5, 100]))
    assert found.objects[0]["bbox"] == [0, 4, 5.5, 6]
    assert found.changes == {"boxes cut off at the border": 1}


def test_no_box_exceeds_its_image_after_rounding(read):
    starts = np.random.default_rng(0).uniform(0, WIDTH, 500)
    boxes = [[x, 0, WIDTH - x + 1, 5] for x in starts.tolist()]
    found = read(*(annotation(bbox=box) for box in boxes)).objects
    assert all(
        x + width <= WIDTH for x, _, width, _ in (each["bbox"] for each in found)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": [2, 1, 0, 6]},
        {"bbox": [2, 1, 1e-300, 6]},
        {"bbox": [2, 1, 6, -1]},
        {"bbox": [30, 1, 6, 6]},
        {"segmentation": []},
        {"segmentation": None},
        {"segmentation": [[1, 1, 5, 5]]},
        {"segmentation": [[3, 3, 3, 3, 3, 3]]},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}},
    ],
)
def test_objects_without_extent_are_left_out_and_counted(read, changes):
    found = read(annotation(), annotation(**changes))
    assert len(found.objects) == 1
    assert sum(found.changes.values()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 8}, "`image_id` is an id in the file"),
        ({"image_id": "7"}, "`image_id` is an id in the file"),
        ({"image_id": [7]}, "`image_id` is an id in the file"),
        ({"category_id": 1}, "`category_id` is an id in the file"),
        ({"bbox": [1, 2, 3]}, "four finite numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "four finite numbers"),
        ({"bbox": "1 2 3 4"}, "four finite numbers"),
        ({"bbox": [1, 2, 3, 10**400]}, "four finite numbers"),
        ({"iscrowd": 2}, "0 or 1"),
        ({"segmentation": "x"}, "neither a list of polygons nor run lengths"),
        ({"segmentation": [[1, 2, 3]]}, "pairs of finite numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("inf")]]}, "pairs of finite numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "far outside"),
        ({"segmentation": {"size": [1, 1], "counts": "0"}}, "the size is not"),
        ({"segmentation": {"size": [10, 20], "counts": [3]}}, "sum to 200"),
        ({"segmentation": {"size": [10, 20], "counts": [-3, 203]}}, "integers from 0"),
        ({"segmentation": {"size": [10, 20], "counts": "zzzz"}}, "damaged"),
        ({"segmentation": {"size": [10, 20], "counts": "0"}}, "damaged"),
        ({"segmentation": {"size": [10, 20], "counts": "ä"}}, "ascii"),
        ({"segmentation": {"size": [10, 20], "counts": "a" * 999}}, "Invalid RLE"),
    ],
)
def test_wrong_annotations_are_refused(read, changes, message):
    with pytest.raises(RunError, match=message):
        read(annotation(**changes))


def test_annotations_that_are_no_objects_are_refused(read):
    with pytest.raises(RunError, match="a list 'annotations' of objects"):
        read("x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_name": "b.png"}, "all files that it names.*1 of 1 are missing: b.png"),
        ({"file_name": "../a.png"}, "different files in"),
        ({"file_name": "/a.png"}, "different files in"),
        ({"file_name": "."}, "are missing"),
        ({"file_name": "a.png\0"}, "a valid `file_name`"),
        ({"file_name": "\ud800.png"}, "a valid `file_name`"),
        ({"file_name": "a\n.png"}, "a valid `file_name`"),
        ({"width": 21}, "a.png is 20x10, not 21x10"),
        ({"width": 0}, "a valid `width`"),
        ({"height": "10"}, "a valid `height`"),
        ({"id": True}, "different integers"),
        ({"id": 2**60}, "different integers"),
    ],
)
def test_wrong_images_are_refused(read, changes, message):
    image = {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    with pytest.raises(RunError, match=message):
        read(annotation(), images=[{**image, **changes}])


def test_images_share_no_file(read):
    image = {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    with pytest.raises(RunError, match="different files in"):
        read(images=[image, {**image, "id": 8, "file_name": "./a.png"}])


def test_images_may_be_links(tmp_path, read):
    (tmp_path / "store").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "store" / "x.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "store" / "x.png")
    image = {"id": 7, "file_name": "link.png", "width": WIDTH, "height": HEIGHT}
    assert len(read(annotation(), images=[image]).objects) == 1


@pytest.mark.parametrize("keep", [8, 20, 30, 40])
def test_damaged_headers_are_refused(tmp_path, read, keep):
    read()
    path = tmp_path / "a.png"
    content = bytearray(path.read_bytes()[:keep])
    if keep > 12:
        content[11] = 5  # length of the header
    path.write_bytes(content)
    with pytest.raises(RunError, match="a.png is "):
        annotations.read(tmp_path / "instances.json", tmp_path)


@pytest.mark.parametrize(("area", "expected"), [(30, 30), (0, 36), ("big", 36)])
def test_wrong_areas_are_replaced_by_those_of_the_masks(read, area, expected):
    found = read(annotation(area=area))
    assert found.objects[0]["area"] == expected
    assert sum(found.changes.values()) == int(area != expected)


def test_single_lines_among_polygons_are_left_out_and_counted(read):
    found = read(annotation(segmentation=[*SQUARE, [1, 1, 2, 2]]))
    assert found.objects[0]["segmentation"] == SQUARE
    assert sum(found.changes.values()) == 1


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\u2028b", 3])
def test_names_of_categories_are_lines_of_text(read, name):
    with pytest.raises(RunError, match="a valid `name`"):
        read(categories=[{"id": 4, "name": name}])


def test_equal_ids_are_refused(read):
    with pytest.raises(RunError, match="categories with different integers"):
        read(categories=[{"id": 4, "name": "a"}, {"id": 4, "name": "b"}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a JSON file"),
        ("[" * 99_999, "is not a JSON file"),
        ("[]", "a list 'images'"),
        ('{"images": {}}', "a list 'images'"),
        ('{"images": [], "annotations": [], "categories": []}', "is empty"),
    ],
)
def test_files_in_other_formats_are_refused(read, text, message):
    with pytest.raises(RunError, match=message):
        read(write=lambda _: text)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(RunError, match=r"none\.json is missing"):
        annotations.read(tmp_path / "none.json", tmp_path)


def test_files_that_are_no_images_are_refused(tmp_path, read):
    read()
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(RunError, match="a.png is not an image"):
        annotations.read(tmp_path / "instances.json", tmp_path)


def test_pycocotools_reads_what_is_kept(tmp_path, read, capsys):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:6, 4:9] = 1
    found = read(annotation(), annotation(segmentation=run_lengths(mask), iscrowd=1))
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(found.as_coco()))
    coco = COCO(path)
    polygon, crowd = coco.loadAnns([1, 2])
    np.testing.assert_array_equal(coco.annToMask(polygon), pixels(SQUARE))
    np.testing.assert_array_equal(coco.annToMask(crowd), mask)
    capsys.readouterr()
