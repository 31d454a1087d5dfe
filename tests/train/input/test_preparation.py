"""Preparation of data sets: checks before and after, and restarts."""

import collections
import fcntl
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from train import prepare
from train.cli import RunError, UsageError
from train.input import preparation
from train.input.builders import checks
from train.input.builders.digits import Digits

TRAIN, VALIDATION, TEST = checks.ARCHIVES["imagenet2012"]
INSTRUCTIONS = "Ask the library\n  for the paper."
KILLED_ONCE = """
import os, signal
from train.input import preparation
from train.input.builders.digits import Digits

class PaperScans(Digits):
    def _generate_examples(self, *arguments):
        for i, example in enumerate(super()._generate_examples(*arguments)):
            if i == 100 and "KILL" in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)
            yield example

preparation.prepare("paper_scans", os.environ["DIRECTORY"], None)
"""


class PaperScans(Digits):
    """One of our data sets, renamed to replace one of tensorflow-datasets."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepared")
    preparation.prepare("paper_scans", str(directory), None)
    return directory


@pytest.fixture
def copy(prepared, tmp_path):
    """A prepared data set that may be damaged."""
    return pathlib.Path(shutil.copytree(prepared, tmp_path / "copy"))


def imagenet(directory):
    return tfds.builder("imagenet2012", data_dir=str(directory))


def write_archives(directory, **other_sizes):
    """Writes files of zeros with the sizes of the archives."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, size in {**checks.ARCHIVES["imagenet2012"], **other_sizes}.items():
        if size:
            with open(directory / name, "wb") as file:
                file.truncate(size)


def limit_space(monkeypatch, gib):
    usage = collections.namedtuple("usage", "free")(int(gib * 2**30))
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or usage)
    return asked


def write_images(directory, classes=("cat", "dog"), count=10):
    images = np.random.default_rng(0).integers(0, 256, (count, 9, 7, 3), np.uint8)
    for name in classes:
        (directory / name).mkdir(parents=True)
        for i, image in enumerate(images):
            encoded = tf.io.encode_png(image).numpy()
            (directory / name / f"{i}.png").write_bytes(encoded)


def test_command_prepares_digits_and_shows_how_to_train(tmp_path, call):
    flags = ["--data=digits", f"--data_dir={tmp_path}"]
    lines = call(prepare, *flags).stdout.splitlines()
    assert lines[-1] == f"train with: {' '.join(flags)}"
    assert [line.split()[:5] for line in lines[-3:-1]] == [
        ["test", "355", "images", "1", "files"],
        ["train", "1,442", "images", "1", "files"],
    ]


def test_command_without_archives_fails_and_writes_nothing(tmp_path, call):
    flags = ["--data=imagenet2012", f"--data_dir={tmp_path}"]
    done = call(prepare, *flags, expected=1)
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert f"--manual_dir={tmp_path}/downloads/manual" in line
    assert f"{TRAIN} 147897477120 bytes, {VALIDATION} 6744924160 bytes" in line
    assert f"Received: {TRAIN} no bytes" in line and "You need to register" in line
    assert not list(tmp_path.iterdir())


def test_unknown_name_is_a_usage_error_with_similar_names(tmp_path):
    with pytest.raises(UsageError, match="like imagenet2012"):
        preparation.prepare("imagnet2012", str(tmp_path), None)


def test_data_set_without_classes_is_refused_first(tmp_path, monkeypatch):
    limit_space(monkeypatch, 0)
    with pytest.raises(RunError, match="lfw is not a classification data set"):
        preparation.prepare("lfw", str(tmp_path), None)
    assert not list(tmp_path.iterdir())


def test_splits_of_a_prepared_data_set_are_reported(prepared, capsys):
    preparation.prepare("paper_scans", str(prepared), None)
    output = capsys.readouterr().out
    assert "paper_scans was prepared before" in output
    assert "preparing" not in output and "355 images         1 files" in output


def test_missing_shard_is_reported(copy):
    (shard,) = copy.rglob("*-test.tfrecord*")
    shard.unlink()
    with pytest.raises(RunError, match=f"{shard.name} is missing.*Received: none"):
        preparation.prepare("paper_scans", str(copy), None)


@pytest.mark.parametrize("missing", [1, 5000])
def test_truncated_shard_is_reported(copy, missing):
    (shard,) = copy.rglob("*-train.tfrecord*")
    os.truncate(shard, shard.stat().st_size - missing)
    words = f"{shard.name} is missing or truncated. Expected: 1442 images. Received: 1"
    with pytest.raises(RunError, match=words):
        preparation.prepare("paper_scans", str(copy), None)


def test_directory_without_dataset_info_is_not_prepared(copy):
    (info,) = copy.rglob("dataset_info.json")
    info.unlink()
    with pytest.raises(RunError, match="holds no prepared data set.*features.json"):
        preparation.prepare("paper_scans", str(copy), None)


def test_complete_archives_are_accepted(tmp_path):
    write_archives(tmp_path)
    checks.check_archives(imagenet(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        (TRAIN, 0, f"Expected: {TRAIN} 147897477120 bytes. Received: {TRAIN} no bytes"),
        (VALIDATION, 9, f"{VALIDATION} 6744924160 bytes. Received: {VALIDATION} 9 b"),
        (TEST, 13685311488, f"{TEST} no bytes. Received: {TEST} 13685311488 bytes"),
    ],
)
def test_archive_of_the_wrong_size_is_reported(tmp_path, name, size, words):
    write_archives(tmp_path, **{name: size})
    with pytest.raises(RunError, match=words):
        checks.check_archives(imagenet(tmp_path), tmp_path)


def test_error_for_missing_archives_quotes_the_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(PaperScans, "MANUAL_DOWNLOAD_INSTRUCTIONS", INSTRUCTIONS)
    words = "Received: none. Ask the library for the paper."
    with pytest.raises(RunError, match=words):
        preparation.prepare("paper_scans", str(tmp_path), None)
    assert not list(tmp_path.iterdir())


def test_builder_receives_the_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(PaperScans, "MANUAL_DOWNLOAD_INSTRUCTIONS", INSTRUCTIONS)
    generators, seen = PaperScans._split_generators, []

    def look(self, dl_manager):
        seen.extend(path.name for path in dl_manager.manual_dir.iterdir())
        return generators(self, dl_manager)

    monkeypatch.setattr(PaperScans, "_split_generators", look)
    default, other = tmp_path / "downloads" / "manual", tmp_path / "other"
    for directory in (default, other):
        directory.mkdir(parents=True)
        (directory / f"{directory.name}.zip").touch()
    preparation.prepare("paper_scans", str(tmp_path), None)
    shutil.rmtree(tmp_path / "paper_scans")
    preparation.prepare("paper_scans", str(tmp_path), str(other))
    assert seen == ["manual.zip", "other.zip"]


@pytest.mark.parametrize("gib", [144.1, 143.9])
def test_imagenet_needs_as_much_space_as_its_archives(tmp_path, monkeypatch, gib):
    limit_space(monkeypatch, gib)
    directory = tmp_path / "not" / "yet"
    needed = checks.needed_space(imagenet(directory))
    if gib > 144:
        checks.check_space(directory, needed)
    else:
        words = f"{tmp_path} has too little .* 144.0 GiB. Received: 143.9 GiB"
        with pytest.raises(RunError, match=words):
            checks.check_space(directory, needed)


def test_download_needs_twice_its_size_minus_existing_files(tmp_path):
    builder = tfds.builder("cifar10", data_dir=str(tmp_path))
    (archive,) = [info.size for info in builder.url_infos.values()]
    assert checks.needed_space(builder) == 2 * archive
    (tmp_path / "downloads" / "cifar10").mkdir(parents=True)
    (tmp_path / "downloads" / "cifar10" / "part").write_bytes(bytes(1000))
    assert checks.needed_space(builder) == 2 * archive - 1000


def test_size_of_one_of_many_configurations_is_unknown(tmp_path):
    builder = tfds.builder("imagenette", data_dir=str(tmp_path))
    assert builder.url_infos and checks.needed_space(builder) == 0


def test_nothing_is_written_if_space_is_insufficient(tmp_path, monkeypatch):
    asked = limit_space(monkeypatch, 0.1)
    with pytest.raises(RunError, match="Expected 0.3 GiB. Received: 0.1 GiB"):
        preparation.prepare("cifar10", str(tmp_path), None)
    assert asked == [tmp_path] and not list(tmp_path.iterdir())


def test_leftovers_count_as_free_space_and_are_kept_until_needed(tmp_path, monkeypatch):
    limit_space(monkeypatch, 0.1)
    remains = tmp_path / "cifar10" / "incomplete.ABC123_3.0.2"
    remains.mkdir(parents=True)
    with open(remains / "bucket.tmp", "wb") as file:
        file.truncate(2**30 // 10)
    with pytest.raises(RunError, match="Received: 0.2 GiB"):
        preparation.prepare("cifar10", str(tmp_path), None)
    assert remains.exists()


@pytest.mark.slow
def test_killed_preparation_restarts_without_leftovers(tmp_path, command):
    environment = {"DIRECTORY": str(tmp_path)}
    command("-c", KILLED_ONCE, env={**environment, "KILL": "1"}, expected=-9)
    (remains,) = (tmp_path / "paper_scans").iterdir()
    assert remains.name.startswith("incomplete.")
    done = command("-c", KILLED_ONCE, env=environment)
    assert "1,442 images" in done.stdout
    assert [p.name for p in (tmp_path / "paper_scans").iterdir()] == ["1.0.0"]


def test_two_processes_do_not_prepare_the_same_data_set(tmp_path):
    remains = tmp_path / "paper_scans" / "incomplete.ABC123_1.0.0"
    remains.mkdir(parents=True)
    descriptor = os.open(remains.parent, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(RunError, match="Another process is preparing a data set"):
            preparation.prepare("paper_scans", str(tmp_path), None)
    finally:
        os.close(descriptor)
    assert remains.exists()
    preparation.prepare("paper_scans", str(tmp_path), None)
    assert not remains.exists()


@pytest.mark.parametrize(
    "failure",
    [
        tfds.download.DownloadError("no such host"),
        OSError("no such host"),
        tf.errors.ResourceExhaustedError(None, None, "no such host"),
    ],
)
def test_failed_preparation_is_reported_on_one_line(tmp_path, monkeypatch, failure):
    def fail(self, dl_manager):
        raise failure

    monkeypatch.setattr(PaperScans, "_split_generators", fail)
    words = f"paper_scans was not prepared. {type(failure).__name__}: .*no such host"
    with pytest.raises(RunError, match=words):
        preparation.prepare("paper_scans", str(tmp_path), None)
    assert not list((tmp_path / "paper_scans").iterdir())


def test_folder_is_decoded_and_reported(tmp_path, capsys):
    write_images(tmp_path / "train")
    (tmp_path / "train" / "cat" / "list.txt").touch()
    preparation.prepare(f"folder:{tmp_path}", None, None)
    *_, split, left_out, flags = capsys.readouterr().out.splitlines()
    assert split.split()[:5] == ["train", "20", "images", "20", "files"]
    assert left_out == "left out    1 .txt"
    assert flags == f"train with: --data=folder:{tmp_path}"


def test_damaged_image_in_a_folder_is_reported(tmp_path):
    write_images(tmp_path / "train")
    (tmp_path / "train" / "dog" / "3.png").write_bytes(b"no picture")
    with pytest.raises(RunError, match="1 damaged: .*train/dog/3.png"):
        preparation.prepare(f"folder:{tmp_path}", None, None)
