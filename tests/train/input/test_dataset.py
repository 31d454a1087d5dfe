"""Data sets: where they come from, their splits and fingerprints, unusable data."""

import concurrent.futures
import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from image_files import write_idx, write_images

from train import config, recipes
from train.cli import RunError, UsageError
from train.input import augment, dataset, pipeline


def test_digits_are_the_scans_of_scikit_learn(digits):
    import sklearn.datasets

    assert digits.shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")
    sizes = {name: len(split) for name, split in digits.splits.items()}
    assert sizes == {"train": 1299, "validation": 143, "test": 355}
    ours = [
        (pipeline.evaluation_image(digits, entry).numpy().tobytes(), label)
        for split in digits.splits.values()
        for entry, label in zip(split.images, split.labels, strict=True)
    ]
    bunch = sklearn.datasets.load_digits()
    pixels = np.round(bunch.data * 255 / 16).astype(np.uint8)
    theirs = [
        (image.tobytes(), label)
        for image, label in zip(pixels, bunch.target, strict=True)
    ]
    assert sorted(ours) == sorted(theirs)


def test_validation_split_is_stratified_and_disjoint(digits):
    train, validation = digits.splits["train"], digits.splits["validation"]
    per_class = np.bincount(validation.labels)
    assert per_class.min() >= 14 and per_class.max() <= 15
    assert not set(train.images.numpy()) & set(validation.images.numpy())


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_become_a_data_set_with_names(tmp_path, data_dir, compress):
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 7))
    labels = np.arange(40) % 4
    write_idx(tmp_path / "idx", images, labels, compress)
    settings = config.Data(f"idx:{tmp_path / 'idx'}", class_names=tuple("abcd"))
    loaded = dataset.load(settings, str(data_dir))
    assert loaded.shape == (9, 7, 1)
    assert loaded.class_names == ("a", "b", "c", "d")
    test = loaded.splits["test"]
    received = [
        pipeline.evaluation_image(loaded, entry).numpy() for entry in test.images
    ]
    assert sorted(x.tobytes() for x in received) == sorted(
        x.astype(np.uint8).tobytes() for x in images
    )


def test_idx_files_with_other_content_are_a_different_data_set(tmp_path, data_dir):
    for value in (0, 255):
        write_idx(tmp_path, np.full((20, 8, 8), value), np.arange(20) % 2)
        loaded = dataset.load(config.Data(f"idx:{tmp_path}"), str(data_dir))
        image = pipeline.evaluation_image(loaded, loaded.splits["test"].images[0])
        assert (image.numpy() == value).all()


def test_folder_is_read_and_resized(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", count=3)
    augmented = {"min_crop_area": 0.5, "flip": True, "shift": 1}
    pixels = {"mean": (0.305,), "std": (0.376,)}
    settings = config.Data(f"folder:{tmp_path}", 8, **pixels, **augmented)
    loaded = dataset.load(settings)
    assert loaded.shape == (8, 8, 3)
    assert loaded.class_names == ("cat", "dog")
    sizes = {name: len(split) for name, split in loaded.splits.items()}
    assert sizes == {"train": 22, "validation": 2, "test": 6}
    images, labels = next(iter(pipeline.training_batches(loaded, 0, 4, 0, 1)))
    assert images.shape == (4, 8, 8, 3) and labels.shape == (4,)


def test_fingerprint_depends_on_contents_not_only_on_paths(tmp_path):
    write_images(tmp_path / "train")
    settings = config.Data(f"folder:{tmp_path}", image_size=8)
    before = dataset.load(settings).fingerprint
    assert dataset.load(settings).fingerprint == before
    first, second = sorted((tmp_path / "train" / "cat").iterdir())[:2]
    second.write_bytes(first.read_bytes())
    assert dataset.load(settings).fingerprint != before


@pytest.mark.slow
def test_concurrent_preparations_of_the_same_data_take_turns(tmp_path, command):
    program = (
        "import sys; from train import config\n"
        "from train.input import dataset\n"
        "print(dataset.load(config.Data('digits'), sys.argv[1]).fingerprint)"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = [pool.submit(command, "-c", program, tmp_path) for _ in range(2)]
        received = [run.result().stdout.splitlines()[-1] for run in runs]
    assert received[0] == received[1]


def test_class_names_are_for_idx_files_only():
    with pytest.raises(UsageError, match="for idx:DIR only. Expected .--set=data.cla"):
        dataset.load(config.Data("digits", class_names=("a", "b")))


def test_recipe_with_class_names_takes_a_folder_once_they_are_dropped(tmp_path):
    write_images(tmp_path / "train")
    fields = [
        f"data.name=folder:{tmp_path}",
        "data.class_names=()",
        "data.image_size=8",
    ]
    recipe = recipes.create_recipe("fashion_mnist_resnet20_an")
    loaded = dataset.load(config.override(recipe, fields).data)
    assert loaded.class_names == ("cat", "dog")


def test_folder_without_test_images_is_split_in_three(tmp_path):
    write_images(tmp_path / "train", count=20)
    loaded = dataset.load(config.Data(f"folder:{tmp_path}", image_size=8))
    sizes = {name: len(split) for name, split in loaded.splits.items()}
    assert sizes == {"train": 28, "validation": 4, "test": 8}


def test_prepared_data_set_is_opened_by_name_from_its_files(tmp_path, data_dir, digits):
    """One of our data sets is renamed to replace one of tensorflow-datasets."""
    prepared = data_dir / "digits" / "1.0.0"
    shutil.copytree(prepared, tmp_path / "scans" / "1.0.0")
    for file in (tmp_path / "scans" / "1.0.0").iterdir():
        if "digits" in file.name:
            file.rename(file.with_name(file.name.replace("digits", "scans")))
    info = tmp_path / "scans" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"name": "digits"', '"name": "scans"'))
    loaded = dataset.load(config.Data("scans"), str(tmp_path))
    for name, split in digits.splits.items():
        np.testing.assert_array_equal(loaded.splits[name].labels, split.labels)


def test_withheld_labels_make_the_validation_images_the_test_images(tmp_path):
    """As prepared with the test images of ImageNet, whose labels are -1."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
    )
    splits = {}
    for name, labels in (("train", [0, 1] * 20), ("validation", [1]), ("test", [-1])):
        arrays = {"image": np.zeros((len(labels), 8, 8, 3), "uint8"), "label": labels}
        splits[name] = tf.data.Dataset.from_tensor_slices(arrays)
    tfds.dataset_builders.store_as_tfds_dataset(
        "withheld", "1.0.0", features, splits, data_dir=tmp_path
    )
    loaded = dataset.load(config.Data("withheld"), str(tmp_path))
    np.testing.assert_array_equal(loaded.splits["test"].labels, [1])
    assert len(loaded.splits["train"]) + len(loaded.splits["validation"]) == 40


def test_without_a_validation_fraction_the_test_images_are_used(tmp_path, data_dir):
    settings = config.Data("digits", validation_fraction=0.0)
    loaded = dataset.load(settings, str(data_dir))
    assert loaded.splits["validation"] is loaded.splits["test"]
    sizes = {name: len(split) for name, split in loaded.splits.items()}
    assert sizes == {"train": 1442, "validation": 355, "test": 355}


@pytest.mark.parametrize("size", [None, 32])
def test_shorter_side_must_cover_the_crop(size, data_dir):
    settings = config.Data("digits", image_size=size, shorter_side=16)
    words = f"shorter_side needs data.image_size, .* Received: 16 and {size}"
    with pytest.raises(RunError, match=words):
        dataset.load(settings, str(data_dir))


def test_centre_of_a_resized_image_is_evaluated(digits):
    settings = dataclasses.replace(
        digits.settings, image_size=12, shorter_side=16, interpolation="bicubic"
    )
    larger = dataclasses.replace(digits, settings=settings, shape=(12, 12, 1))
    entry = digits.splits["test"].images[0]
    image = pipeline.evaluation_image(digits, entry)
    expected = augment.to_input_size(image, (12, 12, 1), 16, "bicubic")
    np.testing.assert_array_equal(pipeline.evaluation_image(larger, entry), expected)
    whole = augment.to_input_size(image, (16, 16, 1), None, "bicubic")
    np.testing.assert_array_equal(expected, whole[2:14, 2:14])


def damaged_folder(tmp_path):
    write_images(tmp_path / "train")
    (tmp_path / "train" / "cat" / "0.jpg").write_bytes(b"\xff\xd8 not much of an image")
    return config.Data(f"folder:{tmp_path}", image_size=8)


def cut_idx(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return config.Data(f"idx:{tmp_path}")


def unnamed_idx(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 3)
    return config.Data(f"idx:{tmp_path}", class_names=("a", "b"))


def uneven_idx(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(19) % 2)
    return config.Data(f"idx:{tmp_path}")


def empty_class(tmp_path):
    write_images(tmp_path / "train")
    (tmp_path / "train" / "eel").mkdir()
    return config.Data(f"folder:{tmp_path}", image_size=8)


def empty_split(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    return config.Data(f"folder:{tmp_path}", image_size=8)


def unsized_folder(tmp_path):
    write_images(tmp_path / "train")
    return config.Data(f"folder:{tmp_path}")


def few_images(tmp_path):
    write_images(tmp_path / "train", count=2)
    return config.Data(f"folder:{tmp_path}", image_size=8)


def one_class(tmp_path):
    write_images(tmp_path / "train", classes=("cat",))
    return config.Data(f"folder:{tmp_path}", image_size=8)


def two_lines(tmp_path):
    write_images(tmp_path / "train", classes=("cat", "do\ng"))
    return config.Data(f"folder:{tmp_path}", image_size=8)


def dangling_link(tmp_path):
    write_images(tmp_path / "train")
    (tmp_path / "train" / "cat" / "z.png").symlink_to(tmp_path / "nothing")
    return config.Data(f"folder:{tmp_path}", image_size=8)


def headless_idx(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5])
    return config.Data(f"idx:{tmp_path}")


def damaged_gzip(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-8:-4] = b"\xff" * 4  # its checksum
    path.write_bytes(content)
    return config.Data(f"idx:{tmp_path}")


def two_sizes_idx(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    write_idx(tmp_path / "other", np.zeros((20, 9, 8)), np.arange(20) % 2)
    name = "t10k-images-idx3-ubyte"
    (tmp_path / "other" / name).rename(tmp_path / name)
    return config.Data(f"idx:{tmp_path}")


def same_names(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    return config.Data(f"idx:{tmp_path}", class_names=("a", "a"))


def four_means(tmp_path):
    write_images(tmp_path / "train")
    return config.Data(f"folder:{tmp_path}", image_size=8, mean=(0.5,) * 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            damaged_folder,
            "cannot be read. Expected JPEG or PNG .*Received: 1 damaged: .*0.jpg",
        ),
        (
            lambda path: config.Data(f"folder:{path}"),
            "is not an image folder.*Received: no directory",
        ),
        (lambda path: config.Data(f"folder:{path}/no"), "Expected a directory"),
        (empty_split, "train/cat' holds no images"),
        (empty_class, "train/eel' holds no images"),
        (unsized_folder, "a single image size. Expected .*data.image_size, such as 64"),
        (four_means, "data.mean must have 1 or 3 values"),
        (lambda path: config.Data(f"idx:{path}"), "Expected train-images-idx3-ubyte"),
        (cut_idx, "does not match its header"),
        (unnamed_idx, "labels without a name. Expected: up to 1. Received: 2"),
        (few_images, "has too few images. Expected at least 3 in a class"),
        (one_class, "needs at least two classes"),
        (two_lines, "single-line UTF-8 names.*do.ng"),
        (dangling_link, "z.png' is not a file.*Received: a broken link"),
        (headless_idx, "is truncated. Expected: 16 bytes of header. Received: 5 bytes"),
        (damaged_gzip, "is damaged"),
        (two_sizes_idx, "images of one size"),
        (same_names, "class names that cannot be used.*Received: 'a', 'a'"),
        (uneven_idx, "one label for each image. Received: 20 and 19"),
        (
            lambda path: config.Data("cifar10"),
            "is not prepared.*train.prepare --data=cifar10",
        ),
    ],
)
def test_unusable_data_is_reported(tmp_path, data_dir, make, words):
    with pytest.raises(RunError, match=words):
        dataset.load(make(tmp_path), str(data_dir))


def test_unknown_data_set_lists_similar_names(data_dir):
    with pytest.raises(UsageError, match="like .*cifar10.*Received: 'cifar11'"):
        dataset.load(config.Data("cifar11"), str(data_dir))


def test_unknown_version_of_a_data_set_is_a_usage_error(data_dir):
    with pytest.raises(UsageError, match="Cannot open data set 'mnist:9.9.9'"):
        dataset.load(config.Data("mnist:9.9.9"), str(data_dir))


def test_fingerprint_depends_on_labels_and_images(digits):
    other = dataclasses.replace(digits, splits={**digits.splits})
    assert other.fingerprint == digits.fingerprint
    other.splits["test"] = digits.splits["test"].take(np.arange(354, -1, -1))
    assert other.fingerprint != digits.fingerprint


def test_moved_images_are_recognized_however_their_path_is_spelled(
    tmp_path, monkeypatch
):
    write_images(tmp_path / "here" / "train")
    monkeypatch.chdir(tmp_path)
    before = dataset.load(config.Data("folder:here", image_size=8))
    assert before.settings.name == f"folder:{tmp_path / 'here'}"
    for name in ("folder:here/", "folder:./here", f"folder:{tmp_path}/here/../here"):
        assert config.Data(name, image_size=8) == before.settings
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(
        RunError, match="Expected a directory.*set --data to its new location"
    ):
        dataset.load_again(before.settings, before.fingerprint, None)
    there = "folder:there"
    moved = dataset.load_again(before.settings, before.fingerprint, None, there)
    assert moved.fingerprint == before.fingerprint
    write_images(tmp_path / "others" / "train", count=10)
    with pytest.raises(
        RunError, match="is not the data set that the run was trained on"
    ):
        dataset.load_again(before.settings, before.fingerprint, None, "folder:others")
