"""The example that trains with `keras.Model.fit`."""

import csv
import gzip
import json
import struct

import keras
import numpy as np
import pytest
import sklearn.datasets

from examples import fit
from train import config
from train.engine import optimizers


@pytest.fixture(scope="module")
def arrays():
    digits = sklearn.datasets.load_digits()
    images = (digits.images * 255 / 16).astype(np.uint8)
    return {
        **{"x_train": images[:1000], "y_train": digits.target[:1000]},
        **{"x_test": images[1000:], "y_test": digits.target[1000:]},
    }


@pytest.fixture
def file(arrays, tmp_path):
    np.savez(tmp_path / "digits.npz", **arrays)
    return tmp_path / "digits.npz"


def test_network_learns_is_saved_and_logged(arrays, file, tmp_path, capsys):
    given = ["resnet8_an", f"--data={file}", "--epochs=5", "--no-flip", "--shift=1"]
    written = [f"--csv={tmp_path / 'a.csv'}", f"--out={tmp_path / 'model.keras'}"]
    fit.main([*given, *written])
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results["top1"] > 0.5 and results["images"] == 797  # 0.1 is chance
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert float(row["top1"]) == results["top1"] and row["backend"] == "tensorflow"
    model = keras.models.load_model(tmp_path / "model.keras")
    logits = model.predict(arrays["x_test"][..., np.newaxis], verbose=0)
    correct = (logits.argmax(axis=1) == arrays["y_test"]).mean()
    assert correct == pytest.approx(results["top1"])


def test_network_learns_from_mixed_images_and_smoothed_labels(file, capsys):
    given = ["resnet8_an", f"--data={file}", "--epochs=8", "--no-flip"]
    fit.main([*given, "--mixup=0.2", "--label_smoothing=0.1"])
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results["top1"] > 0.5  # 0.1 is chance


def test_mixed_batches_hold_every_image_once_and_the_probabilities_of_its_pair():
    images = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    batches = fit.Mixed(images, np.eye(10, dtype=np.float32), 4, alpha=0.2)
    assert [len(batches[index][0]) for index in range(len(batches))] == [4, 4, 2]
    pairs = [batches[index] for index in range(len(batches))]
    mixed, labels = map(np.concatenate, zip(*pairs, strict=True))
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(labels @ np.arange(10), mixed.ravel(), rtol=1e-5)
    assert sorted(batches.order) == [*range(10)] and (labels < 0.999).any()


def test_optimizer_takes_the_steps_of_train():
    start = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    pairs = []
    for optimizer in (
        fit.PublishedSGD(0.1, 0.9, 1e-2),
        optimizers.PublishedSGD(0.1, 0.9, 1e-2),
    ):
        variable = keras.Variable(start)
        optimizer.build([variable])
        for step in range(3):
            optimizer.learning_rate = 0.1 / (step + 1)
            optimizer.apply([keras.ops.sin(variable)], [variable])
        pairs.append(np.asarray(variable))
    np.testing.assert_allclose(*pairs, rtol=1e-6)


def test_optimizer_is_restored_from_its_configuration():
    optimizer = fit.PublishedSGD(fit.schedule(0.2, 3, 10), 0.8, 1e-3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (again.l2, again.momentum) == (1e-3, 0.8)
    assert float(again.learning_rate) == float(optimizer.learning_rate)


@pytest.mark.parametrize("warmup", [0, 4])
def test_schedule_is_that_of_train_one_step_later(warmup):
    ours = fit.schedule(0.2, warmup, 20)
    settings = config.Optimizer(learning_rate=0.2, warmup_epochs=warmup)
    theirs = optimizers.create_schedule(settings, 256, 1, 20)
    for step in range(19):
        assert float(ours(step + 1)) == pytest.approx(float(theirs(step)), abs=1e-7)


def test_idx_files_are_read_gzipped_or_not(arrays, tmp_path):
    for number, (name, stem) in enumerate(fit.IDX.items()):
        array = arrays[name].astype(np.uint8)
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        content = header + array.tobytes()
        if number % 2:
            (tmp_path / stem).write_bytes(content)
        else:
            (tmp_path / f"{stem}.gz").write_bytes(gzip.compress(content))
    received = fit.read(tmp_path)
    for name, expected in arrays.items():
        np.testing.assert_array_equal(np.squeeze(received[name]), expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"x_train": np.zeros((4, 8, 8))},
            "expected uint8 images .* Received: float64",
        ),
        (
            {"x_test": np.zeros((4, 8), np.uint8)},
            r"in x_test. Received: uint8 \(4, 8\)",
        ),
        ({"y_test": np.zeros(3)}, "Received: 797 images, 3 labels"),
    ],
)
def test_wrong_arrays_are_an_error(arrays, tmp_path, change, expected):
    np.savez(tmp_path / "a.npz", **{**arrays, **change})
    with pytest.raises(SystemExit, match=expected):
        fit.read(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"text"])
def test_damaged_file_is_an_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(SystemExit, match="expected a directory or an .npz file with"):
        fit.read(tmp_path / "a.npz")


def test_places_of_results_are_checked_before_training(file, tmp_path):
    given = ["resnet8_an", f"--data={file}"]
    for place, expected in (("no/a.keras", "existing directory"), ("a.h6", ".keras")):
        with pytest.raises(SystemExit, match=expected):
            fit.main([*given, f"--out={tmp_path / place}"])


def test_missing_idx_file_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="expected the file train-images-idx3-ubyte"):
        fit.read(tmp_path)
