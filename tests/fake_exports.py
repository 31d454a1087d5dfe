"""Exports with custom functions as signatures, for tests."""

import json

import tensorflow as tf


def save(path, signatures):
    """Replaces the SavedModel of an export."""
    module = tf.Module()
    module.f = [
        tf.function(function, input_signature=[spec])
        for function, spec in signatures.values()
    ]
    named = dict(zip(signatures, module.f, strict=True))
    for name in ("saved_model.pb", "fingerprint.pb"):
        (path / name).unlink(missing_ok=True)
    assets = {p.name: p.read_text() for p in (path / "assets").iterdir()}
    tf.saved_model.save(module, str(path), signatures=named)
    for name, text in assets.items():
        (path / "assets" / name).write_text(text)


IMAGES = tf.TensorSpec((None, 8, 8, 1), tf.uint8, name="images")
BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")


def answer(count, probabilities=None):
    rows = tf.fill((count, 10), 0.1) if probabilities is None else probabilities
    names = tf.tile(tf.constant([list("01234")]), (count, 1))
    return {"probabilities": rows, "classes": names, "scores": rows[:, :5]}


def signatures(images=None, encoded=None):
    return {
        "serving_default": (
            images or (lambda images: answer(tf.shape(images)[0])),
            IMAGES,
        ),
        "image_bytes": (
            encoded or (lambda image_bytes: answer(tf.shape(image_bytes)[0])),
            BYTES,
        ),
        "features": (
            lambda images: {"features": tf.cast(images[:, 0, :, 0], tf.float32)},
            IMAGES,
        ),
    }


def make(path, functions):
    """Writes an export without training, for 8 x 8 pixels and ten classes."""
    card = {
        "version": int(path.name),
        "model": "resnet20_an",
        "precision": "float32",
        "quantization": None,
        "compared": {},
        "preprocessing": {"shape": [8, 8, 1]},
        "class_names": list("0123456789"),
        "test": None,
    }
    for name in ("assets", "assets.extra"):
        (path / name).mkdir(parents=True)
    (path / "assets" / "model.json").write_text(json.dumps(card))
    (path / "assets" / "labels.txt").write_text("\n".join("0123456789") + "\n")
    (path / "assets.extra" / "tf_serving_warmup_requests").touch()
    save(path, functions)
