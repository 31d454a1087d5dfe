"""Valid class names."""

import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from image_files import write_idx, write_images

from train import config
from train.cli import RunError, UsageError
from train.input import dataset
from train.input.builders import checks

UNUSABLE = [
    ("cat\r", "dog"),
    ("cat\n", "dog"),
    ("a\tcat", "dog"),
    ("cat\x85", "dog"),
    ("cat\u2028", "dog"),
    ("cat\x1b[31m", "dog"),
    ("K\udce4tzchen", "dog"),
    (" ", "dog"),
    ("cat", "cat "),
    ("caf\u00e9", "cafe\u0301"),
]


@pytest.mark.parametrize("names", UNUSABLE)
def test_names_that_are_ambiguous_in_labels_txt_are_unusable(names):
    assert checks.unusable_names(names) == [n for n in names if n != "dog"]


def test_names_of_all_languages_are_usable():
    names = ("Größe", "猫", "می‌خواهم", "cat", "Cat", "hot dog", "n01440764", "x" * 300)
    assert not checks.unusable_names(names)


@pytest.mark.parametrize("names", [("cat\r", "dog"), ("caf\u00e9", "cafe\u0301")])
def test_folders_with_unusable_names_are_refused(tmp_path, names):
    write_images(tmp_path / "train", classes=names)
    with pytest.raises(RunError, match="class names that cannot be used.*Received: 'c"):
        dataset.load(config.Data(f"folder:{tmp_path}", image_size=8))


@pytest.mark.parametrize("names", [("cat\r", "dog"), ("cat", "cat")])
def test_recipes_with_unusable_names_are_refused_before_preparation(tmp_path, names):
    write_idx(tmp_path / "idx", np.zeros((4, 8, 8)), np.arange(4) % 2)
    settings = config.Data(f"idx:{tmp_path / 'idx'}", class_names=names)
    with pytest.raises(RunError, match="field data.class_names has class names that"):
        dataset.load(settings, str(tmp_path / "prepared"))
    assert not (tmp_path / "prepared").exists()


def builder(label):
    features = {"image": tfds.features.Image(), "label": label}
    return types.SimpleNamespace(info=types.SimpleNamespace(features=features))


def test_data_sets_with_unusable_names_are_refused():
    pets = builder(tfds.features.ClassLabel(names=["cat\r", "dog"]))
    with pytest.raises(RunError, match=r"cannot be used.*Received: 'cat\\r'\."):
        dataset.check_features(pets, "pets")


def test_unknown_names_are_accepted_before_preparation():
    dataset.check_features(builder(tfds.features.ClassLabel()), "pets")


def test_data_set_name_that_is_not_utf8_is_a_usage_error():
    with pytest.raises(UsageError, match="must be UTF-8.*udce4"):
        dataset.load(config.Data("folder:K\udce4tzchen"))
