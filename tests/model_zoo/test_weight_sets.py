"""Weights by tag: their records and hashes."""

import numpy as np
import pytest
from conftest import ROOT
from keras import ops

import model_zoo
from model_zoo import weight_sets

TAGS = sorted(weight_sets.TAGS)


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_tags_load_and_classify(name, tag):
    model = model_zoo.create_model(f"{name}.{tag}")
    record = weight_sets.weight_set(name, tag)
    assert model.input_shape == (None, *record.input_shape)
    assert (
        model.output_shape == (None, record.classes) == (None, len(record.class_names))
    )
    assert tag in model_zoo.model_info(name).weights
    by_argument = model_zoo.create_model(name, weights=tag)
    for ours, theirs in zip(model.weights, by_argument.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_metrics_of_a_tag_match_the_results(name, tag):
    rows = (ROOT / "results/fashion_15_epochs.csv").read_text().splitlines()
    row = next(row.split(",") for row in rows if row.split(",")[1] == name)
    columns = dict(zip(rows[0].split(","), row, strict=True))
    metrics = weight_sets.weight_set(name, tag).metrics
    assert metrics["test_top1"] == pytest.approx(float(columns["top1"]), abs=1e-4)
    assert metrics["test_loss"] == pytest.approx(float(columns["loss"]), abs=1e-4)


def test_trained_weights_classify_a_trouser():
    image = np.zeros((28, 28), "uint8")
    image[2:8, 9:19] = image[8:26, 9:13] = image[8:26, 15:19] = 200
    name = "resnet20_an.fashion_mnist"
    inputs = model_zoo.preprocess_input(image[None, ..., None], name)
    (probabilities,) = ops.convert_to_numpy(model_zoo.create_model(name)(inputs))
    record = weight_sets.weight_set("resnet20_an", "fashion_mnist")
    assert record.class_names[probabilities.argmax()] == "Trouser"
    assert probabilities.max() > 0.9


def test_damaged_file_is_refused(tmp_path, monkeypatch):
    name, tag = TAGS[0]
    path = weight_sets.verified_file(name, tag)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / path.name).write_bytes(content)
    monkeypatch.setattr(weight_sets, "DIRECTORY", tmp_path)
    with pytest.raises(ValueError, match="is damaged: its sha256 must be"):
        model_zoo.create_model(f"{name}.{tag}")
    (tmp_path / path.name).unlink()
    with pytest.raises(ValueError, match="Received: no such file"):
        model_zoo.create_model(f"{name}.{tag}")


def test_unknown_tags_are_reported():
    words = "tags: fashion_mnist. Received: 'mnist'"
    for call in (model_zoo.create_model, model_zoo.model_info):
        with pytest.raises(ValueError, match=words):
            call("resnet20_an.mnist")
