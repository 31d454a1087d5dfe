"""Compares the probabilities of an export with those of the Keras model."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from train.cli import RunError
from train.export.image_classifier import ImageClassifier
from train.input import dataset, pipeline

# Tolerances of a probability between the Keras model and its export, by the model's
# precision. OF_CHANGE is a share of the largest change of a probability from image to
# image. LEAST allows for rounding where answers hardly change: in an untrained network
# or one that is certain of a class.
TOLERANCES = {
    "float64": 1e-4,
    "float32": 1e-4,
    "float16": 1e-2,
    "mixed_float16": 5e-3,
    "mixed_bfloat16": 6e-2,
}
OF_CHANGE, LEAST = 0.1, 1e-5
OF_ROUNDING = 4  # times the error of a lower-precision model against float32
AGREEMENT = 0.9  # share of validation images with the same first guess


def saved_model_difference(classifier: ImageClassifier, signatures: dict) -> float:
    """Compares a SavedModel with the model, on pixels and on PNG images.

    Args:
        classifier: The classifier that was exported.
        signatures: The signatures of the SavedModel.

    Returns:
        The largest difference of a probability.

    Raises:
        RunError: If they differ.
    """
    serving_model = classifier.serving_model(classifier.model)
    precise = in_float32(classifier)
    images = probe_images(classifier.shape)
    answer = signatures["serving_default"](images=tf.constant(images))
    largest = difference(
        "serving_default", serving_model, images, answer, classifier.precision, precise
    )
    if "image_bytes" in signatures:
        encoded = [tf.io.encode_png(image) for image in images]
        decoded = np.stack([classifier.decode_and_resize(each) for each in encoded])
        answer = signatures["image_bytes"](image_bytes=tf.stack(encoded))
        through_png = difference(
            "image_bytes", serving_model, decoded, answer, classifier.precision, precise
        )
        largest = max(largest, through_png)
    return largest


def in_float32(classifier: ImageClassifier) -> keras.Model | None:
    """Returns the serving model in float32, if the model has a lower precision."""
    if classifier.precision in ("float32", "float64"):
        return None
    return classifier.serving_model(classifier.network(False, "float32"))


def difference(
    name: str,
    serving_model: keras.Model,
    images: np.ndarray,
    answer: dict | np.ndarray,
    precision: str,
    precise: keras.Model | None = None,
) -> float:
    """Returns the largest difference of a probability between export and model.

    Args:
        name: Name of the export or signature, for the message.
        serving_model: The Keras model.
        images: Images, uint8 (N, H, W, C).
        answer: Answer of the export to these images, or its probabilities.
        precision: Precision of the model, or of the export if that is lower.
        precise: The serving model in float32, if the model has a lower precision.

    Raises:
        RunError: If the difference is larger than rounding explains.
    """
    expected = np.asarray(serving_model(images, training=False)["probabilities"])
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
    """Returns the tolerance for probabilities (N, classes) of different images.

    `exact` holds the same probabilities in float32, which shows the rounding error of
    the model. TensorFlow fuses operations of an export, which are then rounded at other
    places. An error three times as large was observed (an untrained EfficientNetB0 in
    bfloat16).
    """
    change = float(np.ptp(expected, axis=0).max())
    allowed = min(TOLERANCES[precision], max(OF_CHANGE * change, LEAST))
    if exact is None:
        return allowed
    return max(allowed, OF_ROUNDING * float(np.abs(expected - exact).max()))


def probe_images(shape: tuple[int, int, int]) -> np.ndarray:
    """Returns fine noise, coarse noise and a grey image; uint8 (3, H, W, C)."""
    rng = np.random.default_rng(0)
    fine, coarse = (rng.integers(0, 256, size) for size in (shape, (4, 4, shape[-1])))
    smooth = np.asarray(tf.image.resize(coarse, shape[:2]))
    return np.stack([fine, smooth, np.full(shape, 128)]).astype(np.uint8)


def agreement(
    serving_model: keras.Model, predict: Callable, data: dataset.ImageData
) -> dict[str, float]:
    """Compares first guesses of an export and the model on the validation images.

    Raises:
        RunError: If too few first guesses are equal.
    """
    equal = count = 0
    for batch, _, weights in pipeline.evaluation_batches(
        data, "validation", 64, standardized=False
    ):
        batch = batch.numpy()[weights.numpy() > 0]
        expected = np.asarray(serving_model(batch, training=False)["probabilities"])
        equal += int((expected.argmax(-1) == predict(batch).argmax(-1)).sum())
        count += len(batch)
    if equal < AGREEMENT * count:
        raise RunError(
            "The quantized export differs from the model. Expected the same first "
            f"guess for {AGREEMENT:.0%} of {count} validation images. "
            f"Received: {equal}."
        )
    return {"images": count, "same_first_guess": equal / count}
