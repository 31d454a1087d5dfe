"""examples/fit.py on JAX and PyTorch."""

import json

import numpy as np
import pytest
import sklearn.datasets


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_network_learns_and_its_model_is_read_on_tensorflow(backend, tmp_path, command):
    digits = sklearn.datasets.load_digits()
    images = (digits.images * 255 / 16).astype(np.uint8)
    file, model = tmp_path / "digits.npz", tmp_path / "model.keras"
    np.savez(
        file,
        **{"x_train": images[:1000], "y_train": digits.target[:1000]},
        **{"x_test": images[1000:], "y_test": digits.target[1000:]},
    )
    given = "resnet8_an", f"--data={file}", "--epochs=8", "--no-flip", "--shift=1"
    given = *given, "--mixup=0.2", "--label_smoothing=0.1"
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": "."}
    done = command("examples/fit.py", *given, f"--out={model}", env=environment)
    results = json.loads(done.stdout.splitlines()[-1])
    assert results["backend"] == backend and results["top1"] > 0.5  # 0.1 is chance
    reads = (
        "import keras, numpy, sys; from examples import fit;"
        "model = keras.models.load_model(sys.argv[1]);"
        "data = numpy.load(sys.argv[2]); images = data['x_test'][..., None];"
        "guesses = model.predict(images, verbose=0).argmax(1);"
        "print((guesses == data['y_test']).mean())"
    )
    environment = {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": "."}
    read = command("-c", reads, model, file, env=environment)
    top1 = float(read.stdout.splitlines()[-1])
    assert top1 == pytest.approx(results["top1"], abs=0.01)
