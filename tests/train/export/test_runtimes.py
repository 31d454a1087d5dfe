"""Formats of an export, alone and in every order, from a model never called."""

import keras
import numpy as np
import pytest

import an_keras
from train.export import runtimes

SHAPE = (8, 8, 1)


def classifier(norm):
    """A model as `train.export.image_classifier` builds it: built but never called."""
    images = keras.Input(SHAPE, dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(images)
    x = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(norm()(x)))
    probabilities = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(images, {"probabilities": probabilities})


def batch(count):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def attention():
    return an_keras.AttentiveNormalization(3)


# Each format alone, then all forwards and backwards: each one follows every other.
ORDERS = [(name,) for name in runtimes.OTHERS] + [
    runtimes.OTHERS,
    runtimes.OTHERS[::-1],
]


# from the converters of Keras and TensorFlow
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_formats_are_written_in_every_order(order, tmp_path):
    model = classifier(attention)
    for name in order:
        runtimes.write(name, model, tmp_path)
    images = batch(3)
    expected = np.asarray(model(images)["probabilities"])
    for name in order:
        received = runtimes.load(name, tmp_path)(images)
        np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize(
    ("quantization", "norm"),
    [
        *((quantization, attention) for quantization in runtimes.QUANTIZATIONS),
        ("int8", an_keras.BatchNormalization),
    ],
)
def test_litert_is_quantized(quantization, norm, tmp_path):
    model, samples = classifier(norm), batch(20)
    runtimes.write("litert", model, tmp_path, quantization, samples)
    received = runtimes.load("litert", tmp_path)(samples[:3])
    expected = np.asarray(model(samples[:3])["probabilities"])
    np.testing.assert_allclose(received, expected, atol=0.05)


def test_newest_version_is_found_in_a_run_and_among_exports(tmp_path):
    versions = tmp_path / "export"
    for name in ("2", "10", "draft"):
        (versions / name).mkdir(parents=True)
        (versions / name / "saved_model.pb").touch()
    for path, expected in ((tmp_path, "10"), (versions, "10"), (versions / "2", "2")):
        assert runtimes.newest_export(path) == versions / expected
