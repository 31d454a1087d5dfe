"""An export beside the Keras model: how far their probabilities are apart."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from train.cli import RunError
from train.export.image_classifier import ImageClassifier
from train.input import dataset, pipeline

# Of a probability, between the Keras model and its export, by the model's precision;
# and of the largest change of a probability from image to image. LEAST is rounding too:
# of a network whose answers hardly change, an untrained one or one that is sure.
TOLERANCES = {
    "float64": 1e-4,
    "float32": 1e-4,
    "float16": 1e-2,
    "mixed_float16": 5e-3,
    "mixed_bfloat16": 6e-2,
}
OF_CHANGE, LEAST = 0.1, 1e-5
OF_ROUNDING = 4  # times what a model in fewer bits is off from float32
AGREEMENT = 0.9  # share of validation images with an equal first guess


def saved_model_difference(exported: ImageClassifier, signatures: dict) -> float:
    """Compares a SavedModel with the model, through pixels and through PNG.

    Args:
        exported: the model.
        signatures: of the SavedModel.

    Returns:
        The largest difference of a probability.

    Raises:
        RunError: they differ.
    """
    classifier = exported.serving_model(exported.model)
    precise = in_float32(exported)
    images = probe_images(exported.shape)
    answer = signatures["serving_default"](images=tf.constant(images))
    largest = difference(
        "serving_default", classifier, images, answer, exported.precision, precise
    )
    if "image_bytes" in signatures:
        encoded = [tf.io.encode_png(image) for image in images]
        fitted = np.stack([exported.fit(each) for each in encoded])
        answer = signatures["image_bytes"](image_bytes=tf.stack(encoded))
        through_png = difference(
            "image_bytes", classifier, fitted, answer, exported.precision, precise
        )
        largest = max(largest, through_png)
    return largest


def in_float32(exported: ImageClassifier) -> keras.Model | None:
    """The classifier in float32, if the model computes in fewer bits."""
    if exported.precision in ("float32", "float64"):
        return None
    return exported.serving_model(exported.network(False, "float32"))


def difference(
    name: str,
    classifier: keras.Model,
    images: np.ndarray,
    answer: dict | np.ndarray,
    precision: str,
    precise: keras.Model | None = None,
) -> float:
    """The largest difference of a probability between an export and the model.

    Args:
        name: of the export or signature, for the message.
        classifier: the model.
        images: uint8 (N, H, W, C).
        answer: of the export to these images, or its probabilities.
        precision: of the model, or of the export if that is lower.
        precise: the classifier in float32, if the model computes in fewer bits.

    Raises:
        RunError: it is larger than rounding explains.
    """
    expected = np.asarray(classifier(images, training=False)["probabilities"])
    received = answer["probabilities"] if isinstance(answer, dict) else answer
    largest = float(np.abs(np.asarray(received) - expected).max())
    exact = precise and np.asarray(precise(images, training=False)["probabilities"])
    allowed = limit(expected, precision, exact)
    if not largest <= allowed:
        raise RunError(
            f"The export differs from the model. Expected probabilities within "
            f"{allowed:.1e} in {name}. Received: a difference of {largest:.2e}."
        )
    return largest


def limit(
    expected: np.ndarray, precision: str, exact: np.ndarray | None = None
) -> float:
    """What rounding may change of probabilities (N, classes) of different images.

    `exact` are the same in float32: how far the model is rounded. TensorFlow fuses
    operations of an export, which are rounded elsewhere, and were seen to be off three
    times as much (an untrained EfficientNetB0 in bfloat16).
    """
    change = float(np.ptp(expected, axis=0).max())
    allowed = min(TOLERANCES[precision], max(OF_CHANGE * change, LEAST))
    if exact is None:
        return allowed
    return max(allowed, OF_ROUNDING * float(np.abs(expected - exact).max()))


def probe_images(shape: tuple[int, int, int]) -> np.ndarray:
    """Noise, fine and coarse, and a grey image; uint8 (3, H, W, C)."""
    rng = np.random.default_rng(0)
    fine, coarse = (rng.integers(0, 256, size) for size in (shape, (4, 4, shape[-1])))
    smooth = np.asarray(tf.image.resize(coarse, shape[:2]))
    return np.stack([fine, smooth, np.full(shape, 128)]).astype(np.uint8)


def agreement(
    classifier: keras.Model, run: Callable, images: dataset.ImageData
) -> dict[str, float]:
    """How often an export has the model's first guess, on the validation images.

    Raises:
        RunError: too seldom.
    """
    equal = count = 0
    for batch, _, weights in pipeline.evaluation_batches(
        images, "validation", 64, standardized=False
    ):
        batch = batch.numpy()[weights.numpy() > 0]
        expected = np.asarray(classifier(batch, training=False)["probabilities"])
        equal += int((expected.argmax(-1) == run(batch).argmax(-1)).sum())
        count += len(batch)
    if equal < AGREEMENT * count:
        raise RunError(
            "The quantized export differs from the model. Expected the same first "
            f"guess for {AGREEMENT:.0%} of {count} validation images. "
            f"Received: {equal}."
        )
    return {"images": count, "same_first_guess": equal / count}
