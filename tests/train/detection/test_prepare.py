"""From COCO's files to records: counts, repetition, damage, hostile input."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from official.vision.dataloaders import tf_example_decoder
from PIL import Image
from pycocotools.coco import COCO

from train.cli import FAILED, USAGE
from train.detection import prepare


@pytest.fixture
def source(coco, tmp_path):
    """A copy of the scenes that a test may damage."""
    return shutil.copytree(coco, tmp_path / "coco")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "records"


@pytest.fixture
def run(call, source, out):
    def run(*flags, expected=0):
        arguments = (f"--coco={source}", f"--out={out}", "--processes=1", *flags)
        return call(prepare, *arguments, expected=expected)

    return run


def change(source, split, edit):
    path = source / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def decoded(out, split):
    """What Model Garden's decoder reads, by image."""
    decoder = tf_example_decoder.TfExampleDecoder(include_mask=True)
    paths = sorted(map(str, out.glob(f"{split}-*.tfrecord")))
    examples = map(decoder.decode, tf.data.TFRecordDataset(paths))
    return {int(each["source_id"]): each for each in examples}


def test_records_hold_all_images_boxes_and_masks(run, source, out):
    printed = run().stdout
    assert "12 images, 0 without objects" in printed
    assert "train with: task.model.num_classes=4" in printed
    for split in ("train2017", "val2017"):
        given = COCO(source / "annotations" / f"instances_{split}.json")
        examples = decoded(out, split)
        assert examples.keys() == given.imgs.keys()
        for number, example in examples.items():
            objects = given.loadAnns(given.getAnnIds(number))
            masks = np.stack([given.annToMask(each) for each in objects])
            np.testing.assert_array_equal(example["groundtruth_instance_masks"], masks)
            boxes = np.array([each["bbox"] for each in objects])
            corners = [boxes[:, 1], boxes[:, 0], *(boxes[:, :2] + boxes[:, 2:]).T[::-1]]
            np.testing.assert_allclose(
                example["groundtruth_boxes"] * 64, np.transpose(corners), atol=1e-4
            )
            classes = [each["category_id"] for each in objects]
            assert example["groundtruth_classes"].numpy().tolist() == classes
            assert example["image"].shape == (64, 64, 3)


def test_annotations_for_evaluation_are_those_of_the_records(run, source, out):
    change(source, "val2017", lambda coco: coco["annotations"].pop())
    run()
    kept = COCO(out / "instances_val2017.json")
    counts = [len(kept.getAnnIds(number)) for number in sorted(kept.imgs)]
    examples = decoded(out, "val2017")
    assert counts == [len(examples[n]["groundtruth_classes"]) for n in sorted(examples)]


@pytest.mark.slow
def test_several_processes_write_the_same_records(run, out, source, command):
    run()
    other = out.with_name("other")
    command(
        *("-m", "train.detection.prepare", f"--coco={source}", f"--out={other}"),
        "--processes=2",
    )
    expected, received = decoded(out, "train2017"), decoded(other, "train2017")
    assert [*expected] == [*received]
    for number, example in expected.items():
        tf.nest.map_structure(np.testing.assert_array_equal, example, received[number])


def test_images_without_objects_and_crowds_are_kept(run, source, out):
    def edit(coco):
        first = coco["images"][0]["id"]
        coco["annotations"] = [
            {**each, "iscrowd": int(each["image_id"] == 2)}
            for each in coco["annotations"]
            if each["image_id"] != first
        ]

    change(source, "train2017", edit)
    printed = run().stdout
    assert "12 images, 1 without objects" in printed
    examples = decoded(out, "train2017")
    assert examples[1]["groundtruth_classes"].shape == (0,)
    assert examples[2]["groundtruth_is_crowd"].numpy().all()


def test_unicode_names_of_files_and_categories(run, source, out):
    def edit(coco):
        image = coco["images"][0]
        name = "größe 猫 🐈.jpg"
        (source / "val2017" / image["file_name"]).rename(source / "val2017" / name)
        image["file_name"] = name

    change(source, "val2017", edit)
    for split in ("train2017", "val2017"):
        change(source, split, lambda coco: coco["categories"][0].update(name="猫"))
    run()
    assert len(decoded(out, "val2017")) == 5
    kept = json.loads((out / "instances_val2017.json").read_text())
    assert kept["categories"][0]["name"] == "猫"


def test_repeated_preparation_only_checks(run, out):
    first = run().stdout
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run().stdout == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_records_are_found(run, out, keep):
    run()
    (path,) = out.glob("train2017-*")
    path.write_bytes(path.read_bytes()[:keep])
    message = run(expected=FAILED).stderr
    assert ("is damaged after image" if keep else "Expected 12 images") in message


def test_records_of_other_annotations_are_found(run, source, out):
    run()
    shutil.copy(*[next(out.glob(f"{s}-*")) for s in ("train2017", "val2017")])
    assert "does not match the annotations" in run(expected=FAILED).stderr


def test_other_annotations_do_not_replace_records(run, source):
    run()
    change(source, "val2017", lambda coco: coco["annotations"].pop())
    assert "has other annotations" in run(expected=FAILED).stderr


def test_damaged_images_leave_nothing_that_looks_complete(run, source, out):
    path = source / "val2017" / "000003.jpg"
    path.write_bytes(path.read_bytes()[:900])
    assert "000003.jpg is damaged" in run(expected=FAILED).stderr
    assert (
        not [*out.glob("val2017-*")] and not (out / "instances_val2017.json").exists()
    )
    Image.new("RGB", (64, 64)).save(path)
    run()  # what was left does not matter
    assert {path.name for path in out.iterdir()} == {
        *("instances_train2017.json", "instances_val2017.json"),
        *("train2017-00000-of-00001.tfrecord", "val2017-00000-of-00001.tfrecord"),
    }


def test_nothing_is_written_if_an_image_is_missing(run, source, out):
    (source / "val2017" / "000003.jpg").unlink()
    message = run(expected=FAILED).stderr
    assert "1 of 5 are missing: 000003.jpg" in message
    assert not out.exists()


def test_splits_must_have_the_same_categories(run, source):
    change(source, "val2017", lambda coco: coco["categories"][0].update(name="other"))
    message = run(expected=FAILED).stderr
    assert "{'id': 1, 'name': 'other'} in val2017" in message


@pytest.mark.parametrize("splits", ["", "../train2017", "a b", "val2017,val2017"])
def test_wrong_splits_are_usage_errors(run, splits):
    message = run(f"--splits={splits}", expected=USAGE).stderr
    assert "different names of letters, digits, - and _" in message


def test_splits_may_begin_with_the_name_of_another(run, source, out):
    for old, new in (("train2017", "test"), ("val2017", "test-dev")):
        (source / old).rename(source / new)
        names = [f"instances_{name}.json" for name in (old, new)]
        (source / "annotations" / names[0]).rename(source / "annotations" / names[1])
    run("--splits=test,test-dev")
    run("--splits=test,test-dev")
    assert len([*out.glob("*.tfrecord")]) == 2


def test_records_of_an_earlier_preparation_are_replaced(run, out):
    run()
    (out / "val2017-00000-of-00001.tfrecord").rename(
        out / "val2017-00001-of-00002.tfrecord"
    )
    (out / "instances_val2017.json").unlink()
    run()
    assert len([*out.glob("val2017-*")]) == 1


def test_more_objects_than_model_garden_trains_on_are_reported(run, source):
    def edit(coco):
        coco["annotations"] += 101 * coco["annotations"][:1]

    change(source, "val2017", edit)
    assert "only the first 100 objects are trained on" in run().stdout


@pytest.mark.parametrize("content", [b"junk", b"\xff\xfe"])
def test_damaged_files_of_an_earlier_preparation_are_found(run, out, content):
    run()
    (out / "instances_val2017.json").write_bytes(content)
    assert "a different or damaged file" in run(expected=FAILED).stderr


@pytest.mark.parametrize("record", [b"junk", b""])
def test_records_that_are_no_examples_are_found(run, out, record):
    run()
    (path,) = out.glob("val2017-*")
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record)
    assert "is damaged after image 0" in run(expected=FAILED).stderr


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_no_remains(coco, out, command):
    arguments = (f"--coco={coco}", f"--out={out}", "--processes=1")
    message = command(
        *("-m", "train.detection.prepare", *arguments),
        expected=FAILED,
        largest_file=10_000,
    ).stderr
    assert "error: Cannot write records" in message
    assert not [*out.iterdir()]
