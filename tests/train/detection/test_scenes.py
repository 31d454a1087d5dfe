"""Scenes: exact masks, other items and photographs for validation, clear errors."""

import filecmp
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from train.cli import FAILED, USAGE
from train.detection import scenes

SMALL = ("--train=12", "--val=5", "--side=64")


@pytest.fixture(scope="module")
def made(tmp_path_factory, command, data_dir):
    """A directory of scenes, made as a user does."""
    out = tmp_path_factory.mktemp("scenes") / "out"
    command(
        *("-m", "train.detection.scenes", f"--out={out}", f"--data_dir={data_dir}"),
        *SMALL,
    )
    return out


def load(directory, split):
    return json.loads(
        (directory / "annotations" / f"instances_{split}.json").read_text()
    )


def digit(value=200, side=20):
    """A bright square, which covers the whole image."""
    return np.full((1, side, side), value, np.uint8)


@pytest.mark.parametrize(("split", "count"), [("train2017", 12), ("val2017", 5)])
def test_scenes_are_images_with_annotations(made, split, count):
    coco = load(made, split)
    assert [image["id"] for image in coco["images"]] == [*range(1, count + 1)]
    for image in coco["images"]:
        with Image.open(made / split / image["file_name"]) as opened:
            assert (opened.size, opened.format) == ((64, 64), "JPEG")
    assert [each["name"] for each in coco["categories"]] == [*"0123456789"]
    assert {each["image_id"] for each in coco["annotations"]} <= {*range(1, count + 1)}


def test_boxes_and_areas_are_those_of_the_masks(made, capsys):
    coco = COCO(made / "annotations" / "instances_train2017.json")
    capsys.readouterr()
    assert coco.anns
    for each in coco.anns.values():
        mask = coco.annToMask(each)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        size = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        assert each["bbox"] == [columns[0], rows[0], *size]
        assert each["area"] == mask.sum()


def test_masks_are_the_visible_pixels_of_items():
    random = np.random.default_rng(3)
    items = scenes.Items(digit(), np.array([4]))
    black = np.zeros((100, 100, 3), np.uint8)
    scene, seen = scenes.draw(random, items, [black], 64)
    masks = [mask for _, mask in seen]
    assert len(masks) > 1 and {label for label, _ in seen} == {4}
    assert max(sum(masks).ravel()) == 1  # later items cover earlier ones
    np.testing.assert_array_equal(sum(masks), scene.any(axis=-1))


def test_hidden_items_are_not_annotated():
    random = np.random.default_rng(0)
    items = scenes.Items(digit(side=2), np.array([0]))
    black = np.zeros((100, 100, 3), np.uint8)
    for _ in range(50):
        _, seen = scenes.draw(random, items, [black], 32)
        assert all(mask.mean() >= scenes.LEAST for _, mask in seen)


def test_splits_share_neither_photographs_nor_items():
    (train, photographs), (test, others) = scenes.SPLITS.values()
    assert train != test and not {*photographs} & {*others}


def test_equal_seeds_make_equal_scenes(made, tmp_path, call, data_dir):
    same, other = tmp_path / "same", tmp_path / "other"
    for out, seed in ((same, 0), (other, 1)):
        call(
            *(scenes, f"--out={out}", f"--data_dir={data_dir}", *SMALL),
            f"--seed={seed}",
        )
    names = [f"train2017/{number:06d}.jpg" for number in range(1, 13)]
    assert filecmp.cmpfiles(made, same, names, shallow=False)[0] == names
    assert not filecmp.cmpfiles(made, other, names, shallow=False)[0]
    assert load(made, "train2017") == load(same, "train2017")


def test_classes_are_chosen_by_name(tmp_path, call, data_dir):
    out = tmp_path / "out"
    call(
        *(scenes, f"--out={out}", f"--data_dir={data_dir}", *SMALL),
        "--classes=7,3",
    )
    coco = load(out, "val2017")
    assert coco["categories"] == [{"id": 1, "name": "7"}, {"id": 2, "name": "3"}]
    assert {each["category_id"] for each in coco["annotations"]} == {1, 2}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--classes=7,x", "names of classes, each once: 0, 1"),
        ("--classes=7,7", "names of classes, each once: 0, 1"),
        ("--recipe=none", "Unknown recipe"),
        ("--side=20", "in the range [32, 300]"),
        ("--train=0", "in the range [1, 999999]"),
    ],
)
def test_wrong_flags_are_usage_errors(tmp_path, call, data_dir, flag, message):
    out = tmp_path / "out"
    done = call(
        *(scenes, f"--out={out}", f"--data_dir={data_dir}", flag), expected=USAGE
    )
    assert message in done.stderr
    assert not out.exists()


def test_existing_directories_are_not_touched(tmp_path, call):
    done = call(scenes, f"--out={tmp_path}", expected=USAGE)
    assert "Expected --out to be new" in done.stderr


def test_coloured_items_are_refused(tmp_path, call):
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (9, 9), (number, 0, 0))
            image.save(folder / "train" / name / f"{number}.png")
    out = tmp_path / "out"
    done = call(
        *(scenes, "--recipe=photos", f"--data=folder:{folder}", f"--out={out}"),
        expected=FAILED,
    )
    assert "Expected gray images of one size" in done.stderr
