"""Exported formats compute what the layer computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from an_keras import AttentiveNormalization


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"normalization": "group", "groups": 2},
        {"normalization": "instance", "descriptor": "mean_plus_max"},
        {"normalization": "layer", "gate_activation": "softmax"},
        {"normalization": None, "gate_hidden_units": 6},
    ],
    ids=["batch", "group", "instance", "layer", "none"],
)
def model(request):
    layer = AttentiveNormalization(3, **request.param)
    model = keras.Sequential([keras.Input((6, 5, 4)), layer])
    model(images(), training=True)  # updates the statistics
    return model


def images():
    return np.random.default_rng(0).normal(1, 2, (3, 6, 5, 4)).astype("float32")


def run_saved_model(path):
    loaded = tf.saved_model.load(path)
    return loaded.serve(images()).numpy()


def run_litert(path):
    interpreter = tf.lite.Interpreter(model_path=path)
    (inputs,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(inputs["index"], images().shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], images())
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: images()})[0]


@pytest.mark.filterwarnings("default")  # warnings of the converters
@pytest.mark.parametrize(
    ("kind", "suffix", "run"),
    [
        ("tf_saved_model", "", run_saved_model),
        ("litert", ".tflite", run_litert),
        ("onnx", ".onnx", run_onnx),
    ],
)
def test_exported_layer_gives_the_same_values(model, kind, suffix, run, tmp_path):
    path = str(tmp_path / f"model{suffix}")
    model.export(path, format=kind, verbose=False)
    expected = ops.convert_to_numpy(model(images()))
    np.testing.assert_allclose(run(path), expected, atol=1e-5)


def test_json_recreates_the_layer(model, tmp_path):
    again = keras.models.model_from_json(model.to_json())
    model.save_weights(tmp_path / "an.weights.h5")
    again.load_weights(tmp_path / "an.weights.h5")
    np.testing.assert_array_equal(again(images()), model(images()))
