"""The example that converts a pretrained network and trains it on other classes."""

import re

import keras
import numpy as np
import pytest

from an_keras import AttentiveNormalization
from examples import finetune_pretrained as example


@pytest.fixture
def folder(tmp_path):
    """Twenty images of two classes: dark and bright."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            image = rng.integers(low, low + 50, (40, 30, 3))
            keras.utils.save_img(tmp_path / f"images/{name}/{i}.png", image)
    return tmp_path / "images"


@pytest.fixture
def original(tmp_path):
    """MobileNetV2 without its head, with moving statistics, and its weights file."""
    model = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, pooling="avg", weights=None
    )
    file = tmp_path / "original.weights.h5"
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(0.1 * layer.moving_variance)
    model.save_weights(file)
    return model, file


def test_model_computes_the_features_of_the_file_from_images_of_0_to_255(original):
    network, file = original
    model = example.build_model(str(file), 32, classes=2)
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3))
    prepared = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    expected = network.predict(prepared, verbose=0)
    head = model.get_layer("predictions")
    features = keras.Model(model.inputs, head.input).predict(images, verbose=0)
    assert expected.std() > 0.01
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


def test_digits_are_written_as_images_of_ten_classes(tmp_path):
    example.write_digits(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == list("0123456789")
    files = sorted(tmp_path.glob("*/*.png"))
    assert len(files) == 1797
    image = keras.utils.img_to_array(keras.utils.load_img(files[0]))
    assert image.shape == (8, 8, 3) and image.min() == 0 and image.max() > 200


@pytest.mark.slow
def test_both_stages_train_on_a_folder_and_the_file_is_the_model(
    folder, tmp_path, capsys
):
    file = tmp_path / "model.keras"
    flags = ["--weights=none", "--size=32", "--epochs=1", f"--out={file}"]
    example.main([f"--folder={folder}", *flags])
    printed = capsys.readouterr().out
    assert "belonging to 2 classes" in printed
    assert len(re.findall(r"^validation accuracy [01]\.\d{4}$", printed, re.M)) == 3
    (norms, all_weights), (everything, _) = re.findall(
        r"^training ([\d,]+) of ([\d,]+) weights$", printed, re.M
    )
    counts = [int(each.replace(",", "")) for each in (norms, everything, all_weights)]
    assert counts == sorted(counts) and counts[0] < counts[1] / 5
    assert float(re.search(r"largest difference (.*)", printed)[1]) == 0

    model = keras.models.load_model(file)
    (backbone,) = (each for each in model.layers if isinstance(each, keras.Model))
    layers = [x for x in backbone.layers if isinstance(x, AttentiveNormalization)]
    assert len(layers) > 10 and {layer.momentum for layer in layers} == {0.9}
    assert all(np.any(np.asarray(layer.moving_mean) != 0) for layer in layers)
