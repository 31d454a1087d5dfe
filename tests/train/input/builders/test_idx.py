"""Malformed and inconsistent idx files."""

import concurrent.futures
import gzip
import os
import pathlib
import struct
import tracemalloc

import numpy as np
import pytest
from image_files import write_idx

from train import cli, config
from train.cli import RunError, UsageError
from train.input import dataset
from train.input.builders import idx

IMAGES, LABELS = idx.FILES["train"]


def header(*shape):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def packed(content, suffix):
    return gzip.compress(content) if suffix else content


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("shape", "count", "words"),
    [
        ((2**31, 2**31, 4), 0, "Expected: .2147483648, 2147483648, 4. bytes"),
        ((2**32 - 1,) * 3, 9, "Expected: .4294967295, 4294967295, 4294967295. bytes"),
        ((60_000, 2800, 2800), 9, "Expected: .60000, 2800, 2800. bytes. Received: a"),
        ((0, 2**31, 2**31), 0, "holds no data. Expected: lengths above 0"),
        ((20, 8, 0), 0, "holds no data. Expected: lengths above 0"),
        ((20, 8, 8), 1279, "Expected: .20, 8, 8. bytes. Received: 1279"),
        ((20, 8, 8), 1281, "Expected: .20, 8, 8. bytes. Received: more"),
        ((20, 64), 1280, "with 3 dimensions. Expected first bytes: 00000803"),
    ],
)
def test_header_and_content_must_agree(tmp_path, suffix, shape, count, words):
    path = tmp_path / f"{IMAGES}{suffix}"
    path.write_bytes(packed(header(*shape) + bytes(count), suffix))
    with pytest.raises(RunError, match=words):
        idx.read_idx(path, 3)


def test_unpacking_stops_at_the_size_in_the_header(tmp_path):
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(gzip.compress(header(20, 8, 8) + bytes(2**26)))
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match="bytes. Received: more"):
            idx.read_idx(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_counts_are_compared_before_anything_is_unpacked(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    (tmp_path / IMAGES).unlink()
    content = header(2**16, 32, 32) + bytes(2**26)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(content))
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match="Received: 65536 and 20"):
            dataset.load(config.Data(f"idx:{tmp_path}"), str(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-4], lambda content: content + b"garbage"]
)
def test_damaged_archive_is_reported(tmp_path, damage):
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(damage(gzip.compress(header(20, 8, 8) + bytes(1280))))
    with pytest.raises(RunError, match="ubyte.gz is damaged"):
        idx.read_idx(path, 3)


def test_labels_with_gaps_are_reported(tmp_path, data_dir):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2 * 3)
    words = "classes without a training image.*4 classes. Received: none for 1, 2"
    with pytest.raises(RunError, match=words):
        dataset.load(config.Data(f"idx:{tmp_path}"), str(data_dir))


def test_name_without_a_directory_is_a_usage_error(data_dir):
    for name in ("idx", "folder"):
        with pytest.raises(UsageError, match="Expected digits, idx:DIR, folder:DIR"):
            dataset.load(config.Data(name), str(data_dir))


def test_leftovers_of_a_killed_preparation_are_removed(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    place = pathlib.Path(idx.Idx(tmp_path, data_dir=tmp_path).data_dir)
    remains = place.with_name(f"incomplete.ABC123_{place.name}")
    remains.mkdir(parents=True)
    (remains / "idx-train.tfrecord").touch()
    dataset.load(config.Data(f"idx:{tmp_path}"), str(tmp_path))
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_load_waits_for_a_running_preparation(tmp_path):
    write_idx(tmp_path, np.zeros((20, 8, 8)), np.arange(20) % 2)
    place = pathlib.Path(idx.Idx(tmp_path, data_dir=tmp_path).data_dir)
    going_on = place.with_name(f"incomplete.ABC123_{place.name}")
    going_on.mkdir(parents=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with cli.lock(place.parent):
            settings = config.Data(f"idx:{tmp_path}")
            loading = pool.submit(dataset.load, settings, str(tmp_path))
            with pytest.raises(concurrent.futures.TimeoutError):
                loading.result(timeout=1)
            assert going_on.exists()
        assert len(loading.result().splits["test"]) == 20


def test_pipe_in_place_of_a_file_is_reported(tmp_path, data_dir):
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(RunError, match="regular file. Received: a pipe or a device"):
        dataset.load(config.Data(f"idx:{tmp_path}"), str(data_dir))
