"""Weights: tags and their hashes, strict loading, new heads."""

import logging

import h5py
import numpy as np
import pytest
from conftest import ROOT
from keras import ops

import model_zoo
from model_zoo import weights

SMALL = {"input_shape": (32, 32, 3)}
TAGS = sorted(weights.TAGS)


@pytest.fixture
def file(tmp_path):
    """A model and the file of its weights."""
    model = model_zoo.create_model("resnet18_an", classes=7, **SMALL)
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    return model, path


def backbone(model):
    return [
        ops.convert_to_numpy(w)
        for layer in model.layers
        if layer.name != "predictions"
        for w in layer.weights
    ]


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_tags_load_and_classify(name, tag):
    model = model_zoo.create_model(f"{name}.{tag}")
    record = weights.record(name, tag)
    assert model.input_shape == (None, *record.input_shape)
    assert (
        model.output_shape == (None, record.classes) == (None, len(record.class_names))
    )
    assert tag in model_zoo.model_info(name).weights
    by_argument = model_zoo.create_model(name, weights=tag)
    assert_equal(model.get_weights(), by_argument.get_weights())


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_metrics_of_a_tag_are_those_of_the_results(name, tag):
    rows = (ROOT / "results/fashion_15_epochs.csv").read_text().splitlines()
    row = next(row.split(",") for row in rows if row.split(",")[1] == name)
    columns = dict(zip(rows[0].split(","), row, strict=True))
    metrics = weights.record(name, tag).metrics
    assert metrics["test_top1"] == pytest.approx(float(columns["top1"]), abs=1e-4)
    assert metrics["test_loss"] == pytest.approx(float(columns["loss"]), abs=1e-4)


def test_trained_weights_are_sure_of_a_trouser():
    image = np.zeros((28, 28), "uint8")
    image[2:8, 9:19] = image[8:26, 9:13] = image[8:26, 15:19] = 200
    name = "resnet20_an.fashion_mnist"
    inputs = model_zoo.preprocess_input(image[None, ..., None], name)
    (probabilities,) = ops.convert_to_numpy(model_zoo.create_model(name)(inputs))
    record = weights.record("resnet20_an", "fashion_mnist")
    assert record.class_names[probabilities.argmax()] == "Trouser"
    assert probabilities.max() > 0.9


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    name, tag = TAGS[0]
    path = weights.verified_file(name, tag)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / path.name).write_bytes(content)
    monkeypatch.setattr(weights, "DIRECTORY", tmp_path)
    with pytest.raises(ValueError, match="is damaged: its sha256 must be"):
        model_zoo.create_model(f"{name}.{tag}")
    (tmp_path / path.name).unlink()
    with pytest.raises(ValueError, match="Received: no such file"):
        model_zoo.create_model(f"{name}.{tag}")


def test_unknown_tags_are_named():
    words = "tags: fashion_mnist. Received: 'mnist'"
    for call in (model_zoo.create_model, model_zoo.model_info):
        with pytest.raises(ValueError, match=words):
            call("resnet20_an.mnist")


def test_weights_are_named_once(file):
    with pytest.raises(ValueError, match="must be named once"):
        model_zoo.create_model("resnet20_an.fashion_mnist", weights=file[1])


def test_none_stands_for_the_shape_and_classes_of_the_tag():
    model = model_zoo.create_model(
        "resnet20_an.fashion_mnist", input_shape=None, classes=None, name="clothes"
    )
    assert (model.input_shape, model.name) == ((None, 28, 28, 1), "clothes")


def test_file_of_the_same_network_loads(file):
    model, path = file
    again = model_zoo.create_model("resnet18_an", classes=7, weights=path, **SMALL)
    assert_equal(model.get_weights(), again.get_weights())


def test_other_classes_get_a_new_head_and_a_line_in_the_log(file, caplog):
    model, path = file
    with caplog.at_level(logging.INFO):
        other = model_zoo.create_model("resnet18_an", classes=3, weights=path, **SMALL)
    assert [record.getMessage() for record in caplog.records] == [
        f"resnet18_an: loaded all but the head, which is for 7 classes in {path}"
    ]
    assert_equal(backbone(model), backbone(other))
    assert other.output_shape == (None, 3)
    assert np.std(other.get_layer("predictions").kernel) > 0


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_a_network_without_the_top_takes_the_rest(file, pooling):
    model, path = file
    other = model_zoo.create_model(
        "resnet18_an", include_top=False, pooling=pooling, weights=path, **SMALL
    )
    assert_equal(backbone(model), backbone(other))


def test_a_tag_without_the_top_takes_images_of_any_size():
    features = model_zoo.create_model(
        "resnet20_an.fashion_mnist",
        include_top=False,
        pooling="avg",
        input_shape=(None, None, 1),
    )
    whole = model_zoo.create_model("resnet20_an.fashion_mnist")
    assert_equal(backbone(features), backbone(whole))
    assert features(np.zeros((1, 40, 36, 1))).shape == (1, 64)


def test_a_file_without_the_top_leaves_the_head_new(tmp_path, caplog):
    path = tmp_path / "features.weights.h5"
    features = model_zoo.create_model("resnet18_an", include_top=False, **SMALL)
    features.save_weights(path)
    whole = model_zoo.create_model("resnet18_an", weights=path, **SMALL)
    assert_equal(backbone(features), backbone(whole))
    assert "all but the head, which is missing in" in caplog.text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18_bn", {}),
        ("resnet34_an", {}),
        ("resnet18_an", {"position": "norm2"}),  # of the same shapes
        ("resnet18_an", {"position": "norm12"}),
        ("resnet18_an", {"num_components": 5}),
        ("resnet18_an", {"input_shape": (32, 32, 1)}),
    ],
)
@pytest.mark.parametrize("classes", [7, 8])
def test_weights_of_another_network_are_refused(file, name, options, classes):
    options = {**SMALL, **options}
    with pytest.raises(ValueError, match="holds the weights of another network"):
        model_zoo.create_model(name, classes=classes, weights=file[1], **options)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a torch file", b"\x89HDF\r\n\x1a\n cut off"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no .weights.h5 file or is damaged"):
        model_zoo.create_model("resnet18_an", weights=path, **SMALL)


def test_a_truncated_file_is_refused(file):
    _, path = file
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="is no .weights.h5 file or is damaged"):
        model_zoo.create_model("resnet18_an", classes=7, weights=path, **SMALL)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="path of a .weights.h5 file"):
        model_zoo.create_model("resnet18_an", weights=tmp_path / "no.weights.h5")


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_files_of_whole_models_are_no_weights_files(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="must be None, the path of a .weights.h5"):
        model_zoo.create_model("resnet18_an", weights=path, **SMALL)


def test_other_hdf5_files_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(3)
        file["layers/b/c/0"] = np.zeros(3)
    with pytest.raises(ValueError, match="weights of another network than resnet18_an"):
        model_zoo.create_model("resnet18_an", weights=path, **SMALL)
