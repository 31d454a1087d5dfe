"""Which images a replica takes, in memory and from record files."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from train import config
from train.cli import RunError
from train.input import dataset, order
from train.input.builders.digits import Digits


@pytest.fixture(scope="module")
def sharded_dir(tmp_path_factory):
    """The digits in ten files per split."""
    directory = tmp_path_factory.mktemp("sharded")
    tfds.disable_progress_bar()
    Digits(data_dir=directory).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=10)
    )
    return directory


@pytest.fixture(scope="module")
def sharded(sharded_dir):
    settings = config.Data("digits", memory_limit=0.0, validation_fraction=0.2)
    return dataset.load(settings, str(sharded_dir))


@pytest.fixture(scope="module")
def in_memory(sharded_dir):
    return dataset.load(config.Data("digits"), str(sharded_dir))


@pytest.fixture
def small_windows(monkeypatch):
    """Makes epochs, groups of files and windows all end at different places."""
    monkeypatch.setattr(order, "WINDOW", 50)
    monkeypatch.setattr(order, "FILES_AT_A_TIME", 3)


def taken(split, replica=0, replicas=1, batch=10, start=0, stop=20, seed=0):
    """Returns positions, encoded images and labels."""
    share = order.Share(replica, replicas, batch)
    return list(split.training(share, seed, start, stop).as_numpy_iterator())


def images(examples):
    return [image for _, image, _ in examples]


@pytest.fixture(params=["in_memory", "sharded"])
def train_split(request):
    return request.getfixturevalue(request.param).splits["train"]


@pytest.mark.usefixtures("small_windows")
def test_replicas_share_the_positions_of_a_step(train_split):
    one = [position for position, _, _ in taken(train_split, stop=8)]
    both = [
        position
        for replica in (0, 1)
        for position, _, _ in taken(train_split, replica, 2, batch=5, stop=8)
    ]
    assert one == sorted(both) == list(range(80))


def test_replicas_together_take_the_same_images_as_one(in_memory):
    split = in_memory.splits["train"]
    one = dict((position, image) for position, image, _ in taken(split, stop=8))
    two = taken(split, 0, 2, batch=5, stop=8) + taken(split, 1, 2, batch=5, stop=8)
    assert one == dict((position, image) for position, image, _ in two)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("start", [1, 7, 60, 113, 119, 250])
def test_replica_resumes_at_any_step(train_split, start):
    whole = taken(train_split, 1, 2, stop=start + 4)
    assert taken(train_split, 1, 2, start=start, stop=start + 4) == whole[start * 10 :]


@pytest.mark.usefixtures("small_windows")
def test_every_epoch_takes_all_images_of_the_files_in_a_new_order(sharded):
    split = sharded.splits["train"]
    count = len(split)
    both = images(taken(split, batch=1, stop=2 * count))
    first, second = both[:count], both[count:]
    stored = split.evaluation(order.Share(0, 1, 1)).as_numpy_iterator()
    assert sorted(first) == sorted(second) == sorted(image for image, _, _ in stored)
    shared = {*first[: count // 2]} & {*second[: count // 2]}
    assert len(shared) < 0.8 * (count // 2)  # different files come first
    assert images(taken(split, seed=1)) != images(taken(split, seed=0))


@pytest.mark.parametrize("replicas", [1, 2, 3, 10, 12])
@pytest.mark.parametrize("kind", ["in_memory", "sharded"])
def test_evaluation_sees_every_image_once(request, kind, replicas):
    split = request.getfixturevalue(kind).splits["test"]
    seen, steps = collections.Counter(), split.evaluation_steps(7, replicas)
    for replica in range(replicas):
        examples = list(split.evaluation(order.Share(replica, replicas, 7)))
        assert len(examples) == 7 * steps
        seen.update(image.numpy() for image, _, weight in examples if weight == 1)
    assert len(seen) == len(split) == 355 and {*seen.values()} == {1}
    assert split.names() == range(355)


def test_labels_come_with_their_images(in_memory, sharded):
    def pairs(loaded, name):
        share = order.Share(0, 1, 1)
        evaluation = loaded.splits[name].evaluation(share).as_numpy_iterator()
        return {(image, label) for image, label, _ in evaluation}

    names = ("train", "validation", "test")
    first, second = (
        set().union(*(pairs(loaded, name) for name in names))
        for loaded in (in_memory, sharded)
    )
    assert first == second and len(first) == 1797
    labelled = {(image, label) for _, image, label in taken(sharded.splits["train"])}
    assert labelled <= first


def test_last_files_are_set_aside_for_validation(sharded):
    sizes = {name: len(split) for name, split in sharded.splits.items()}
    assert len(sharded.splits["validation"].paths) == 2
    assert sizes["train"] + sizes["validation"] == 1442
    split = sharded.splits["train"]
    assert [len(part.paths) for part in split.carve(1e-9)] == [7, 1]
    assert [len(part.paths) for part in split.carve(0.9)] == [1, 7]
    with pytest.raises(RunError, match="cannot be divided. Expected at least 2 files"):
        split.carve(0.9)[0].carve(0.5)


def test_more_replicas_than_files_are_refused(sharded):
    with pytest.raises(RunError, match="at least 9, one for each. Received: 8"):
        taken(sharded.splits["train"], replicas=9)


def test_missing_files_are_reported(sharded, sharded_dir, tmp_path):
    path = sharded.splits["test"].paths[3]
    tf.io.gfile.rename(path, f"{tmp_path}/aside")
    try:
        with pytest.raises(RunError, match="digits is incomplete.*1 missing.*00003-of"):
            dataset.load(sharded.settings, str(sharded_dir))
    finally:
        tf.io.gfile.rename(f"{tmp_path}/aside", path)


def test_splits_have_different_fingerprints(sharded, in_memory):
    prints = [
        split.fingerprint()
        for loaded in (sharded, in_memory)
        for split in loaded.splits.values()
    ]
    assert len({*prints}) == 6


def test_carving_leaves_an_image_of_every_class():
    labels = np.array([0, 1, 1, 2, 2, 2])
    split = order.IndexedSplit(tf.constant([b"%d" % i for i in range(6)]), labels)
    kept, aside = split.carve(0.5)
    assert sorted(kept.labels) == [0, 1, 2]
    assert sorted(aside.labels) == [1, 2, 2]
