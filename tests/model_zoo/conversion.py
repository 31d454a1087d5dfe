"""Checks the conversion of each network of Keras Applications.

python tests/model_zoo/conversion.py FILE.csv writes a table: for each network, the
duration of the conversion in seconds, and the largest difference between the outputs
before and after it.
"""

import csv
import datetime
import gc
import os
import pathlib
import platform
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from an_keras import AttentiveNormalization, convert_normalization
from an_keras.conversion import NORMS
from an_keras.keras_internals import flatten_layers
from model_zoo.keras_applications import FAMILIES

NETWORKS = {name: family for family in FAMILIES for name in family.networks}
SIZE = 96


def trained_like(name, low=-1.0, high=1.0, size=SIZE):
    """Returns a plain network with norms as if trained, and images; logits are O(1)."""
    rng = np.random.default_rng(0)
    build = getattr(keras.applications, name)
    shape = {"input_shape": (size, size, 3)}
    model = build(weights=None, classes=10, classifier_activation=None, **shape)
    images = rng.uniform(low, high, (8, size, size, 3)).astype("float32")
    norms = [layer for layer in flatten_layers(model) if isinstance(layer, NORMS)]
    for norm in norms:
        if norm.gamma is not None:
            norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.2, norm.beta.shape))
    for layer in flatten_layers(model):
        if type(layer).__name__ == "LayerScale":  # 1e-6 would hide its branch
            layer.gamma.assign(0.5 * np.ones(layer.gamma.shape))
    batch_norms = [norm for norm in norms if hasattr(norm, "momentum")]
    momenta = [norm.momentum for norm in batch_norms]
    for norm in batch_norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(batch_norms, momenta, strict=True):
        norm.momentum = momentum
    return model, images


def attentive(model):
    return [each for each in flatten_layers(model) if hasattr(each, "gate")]


def check(name, size=SIZE) -> dict:
    """Converts a network and returns the results.

    Raises:
        AssertionError: If reloading changes the outputs, or a training step leaves a
            weight of an attentive normalization unchanged.
    """
    plain, images = trained_like(name, size=size)
    report, start = [], time.perf_counter()
    converted = convert_normalization(
        plain, num_components=NETWORKS[name].num_components, report=report
    )
    seconds = time.perf_counter() - start
    before, after = (np.asarray(m(images, training=False)) for m in (plain, converted))
    difference = float(np.abs(after - before).max() / before.std())
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "model.keras"
        converted.save(path)
        reloaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(reloaded(images, training=False), after)
    _train_one_step(converted, images)
    return {
        "network": name,
        "pixels": size,
        "norms": len(report),
        "attentive": len(attentive(converted)),
        "largest_difference": difference,
        "seconds": round(seconds, 2),
        "machine": f"{os.cpu_count()} x {platform.machine()}, no GPU",
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _train_one_step(model, images):
    layers = [e for e in attentive(model) if isinstance(e, AttentiveNormalization)]
    assert layers
    variables = [
        v for e in layers for v in (e.gamma, e.beta, e.gate.kernel, e.gate.bias)
    ]
    old = [keras.ops.convert_to_numpy(variable) for variable in variables]
    labels = np.arange(len(images)) % 10
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    keras.optimizers.SGD(0.1).apply(gradients, model.trainable_variables)
    for variable, value in zip(variables, old, strict=True):
        assert np.any(keras.ops.convert_to_numpy(variable) != value), variable.path


def main(path):
    rows = []
    for name in NETWORKS:
        rows.append(check(name))
        print(rows[-1], flush=True)
        keras.backend.clear_session()
        gc.collect()
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1])
