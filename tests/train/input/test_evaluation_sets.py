"""Data sets to evaluate on: labels, splits, classes."""

import dataclasses
import functools
import json

import fake_imagenet
import numpy as np
import pytest
import tensorflow as tf

from train import config
from train.cli import RunError, UsageError
from train.input import augment, corruptions, dataset, evaluation_sets

NAMES = ("cat", "dog", "owl")


def image(seed, height=6, width=5):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return pixels.astype(np.uint8)


@pytest.fixture(scope="module")
def imagenets(tmp_path_factory):
    """ImageNet-A with two classes, and ReaL labels of four images."""
    directory = tmp_path_factory.mktemp("imagenets")
    fake_imagenet.prepare(
        "imagenet_a",
        directory,
        {
            "test": [
                {"image": image(label), "label": label, "file_name": f"{label}.jpeg"}
                for label in (11, 6, 11)
            ]
        },
    )
    fake_imagenet.prepare(
        "imagenet2012_real",
        directory,
        {
            "validation": [
                {
                    "image": image(number),
                    "original_label": number,
                    "real_label": labels,
                    "file_name": f"{number}.JPEG",
                }
                for number, labels in enumerate(([3], [], [2, 999], [0]))
            ]
        },
    )
    return str(directory)


def a_set(labels, names=NAMES, count=None):
    """Grey images of one pixel; the labels of each are a list."""
    pixels = (np.full((1, 1, 3), 10 * n, np.uint8) for n in range(len(labels)))
    encoded = [*map(tf.io.encode_png, pixels)]
    ragged = tf.ragged.constant(labels, tf.int64, ragged_rank=1)
    examples = tf.data.Dataset.from_tensor_slices((encoded, ragged)).enumerate()
    examples = examples.map(
        lambda index, each: (index, each[0], tf.reshape(each[1], [-1]), index)
    )
    return evaluation_sets.EvaluationSet(
        "a set", "test", names, examples, len(labels) if count is None else count
    )


def read(images, to_network=None, batch_size=2, corruption=None):
    decode = functools.partial(augment.decode_and_resize, shape=(4, 4, 3))
    labels = np.arange(len(images.class_names)) if to_network is None else to_network
    return [
        *evaluation_sets.batches(
            images, decode, np.array(labels), batch_size, corruption
        )
    ]


def test_batches_hold_every_image_with_its_labels_and_index():
    first, second = read(a_set([[0], [1, 2], [2]]))
    assert first[0].dtype == np.uint8 and first[0][:, 0, 0, 0].tolist() == [0, 10]
    assert first[1].tolist() == [[0, -1], [1, 2]] and first[2].tolist() == [0, 1]
    assert second[1].tolist() == [[2]] and second[2].tolist() == [2]


def test_images_without_a_label_of_the_network_are_left_out():
    ((pixels, labels, names),) = read(
        a_set([[0], [1], [], [-1], [1, 2]]), [-1, 5, -1], batch_size=9
    )
    assert names.tolist() == [1, 4] and pixels[:, 0, 0, 0].tolist() == [10, 40]
    assert labels.tolist() == [[5, -1], [5, -1]]


def test_thinned_images_are_evenly_spaced():
    images = a_set([[0]] * 7)
    names = [
        np.concatenate([names for *_, names in read(images.thinned(most))]).tolist()
        for most in (None, 7, 4, 3, 1)
    ]
    assert names == [[*range(7)], [*range(7)], [0, 2, 4, 6], [0, 3, 6], [0]]
    assert [images.thinned(most).count for most in (None, 4, 1)] == [7, 4, 1]


def test_corruption_of_an_image_depends_on_seed_and_index_only():
    images = a_set([[0], [1], [2], [0]])
    corrupted = ("gaussian_noise", 3, 7)
    whole = [p for pixels, *_ in read(images, None, 3, corrupted) for p in pixels]
    part = [
        p for pixels, *_ in read(images.thinned(2), None, 1, corrupted) for p in pixels
    ]
    assert np.array_equal(whole[::2], part)
    expected = corruptions.corrupt(
        np.full((4, 4, 3), 20, np.uint8), "gaussian_noise", 3, (7, 2)
    )
    assert np.array_equal(whole[2], expected)


def test_labels_are_matched_by_name():
    images = a_set([[0]])
    network = ("owl", "cow", "cat", "dog")
    assert evaluation_sets.match(images, network).tolist() == [2, 3, 0]
    mapping = {"dog": "cow", "owl": "owl"}
    assert evaluation_sets.match(images, network, mapping).tolist() == [-1, 1, 0]


def test_classes_that_do_not_match_are_refused():
    images = a_set([[0]])
    with pytest.raises(RunError, match="3 classes, 1 of which it does not have.*'owl'"):
        evaluation_sets.match(images, ("cat", "dog", "cow"))
    with pytest.raises(UsageError, match="of a set in --label_map.*'fish'"):
        evaluation_sets.match(images, NAMES, {"fish": "cat"})
    with pytest.raises(UsageError, match="of the network in --label_map.*'fish'"):
        evaluation_sets.match(images, NAMES, {"cat": "fish"})


def test_map_is_a_json_object_of_names(tmp_path):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"a": "b"}))
    assert evaluation_sets.read_map(str(file)) == {"a": "b"}
    for text in ("[]", '{"a": 1}', "{", "3", "\xff"):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(RunError, match="is no map of labels. Expected a JSON"):
            evaluation_sets.read_map(str(file))


def test_split_of_a_run_has_its_images_in_order(data_dir):
    data = dataset.load(config.Data("digits"), str(data_dir))
    split = data.splits["validation"]
    images = evaluation_sets.of_split("digits", "validation", data.class_names, split)
    labels = [int(labels[0]) for _, _, labels, _ in images.examples]
    assert labels == split.labels.tolist() and images.count == len(labels)
    assert images.present().tolist() == [*range(10)]


def test_set_with_several_labels_has_all_of_them(imagenets):
    images = evaluation_sets.open_set("imagenet2012_real", data_dir=imagenets)
    assert images.split == "validation" and len(images.class_names) == 1000
    received = {
        name.numpy(): labels.numpy().tolist() for _, _, labels, name in images.examples
    }
    assert received == {
        b"0.JPEG": [3],
        b"1.JPEG": [],
        b"2.JPEG": [2, 999],
        b"3.JPEG": [0],
    }


def test_present_labels_are_those_of_the_images(imagenets):
    images = evaluation_sets.open_set("imagenet_a", data_dir=imagenets)
    assert (images.split, images.count) == ("test", 3)
    assert images.present().tolist() == [6, 11]


def test_unknown_split_is_refused(imagenets):
    with pytest.raises(UsageError, match="one of test. Received: --split=train"):
        evaluation_sets.open_set("imagenet_a", "train", imagenets)


def test_folder_has_a_set_for_each_of_its_splits(tmp_path):
    for split in ("train", "test"):
        for name in NAMES:
            (tmp_path / split / name).mkdir(parents=True)
            tf.io.write_file(
                str(tmp_path / split / name / "a.png"), tf.io.encode_png(image(1))
            )
    images = evaluation_sets.open_set(f"folder:{tmp_path}")
    assert images.split == "test" and images.count == 3
    names = [name.numpy().decode() for *_, name in images.examples]
    assert names == [str(tmp_path / "test" / name / "a.png") for name in NAMES]


def test_damaged_files_are_reported():
    images = a_set([[0]])
    broken = images.examples.map(lambda i, image, *rest: (i, b"no image", *rest))
    images = dataclasses.replace(images, examples=broken)
    with pytest.raises(RunError, match="a set cannot be read"):
        read(images)
