"""The SavedModel of an export: signatures, assets and warm-up requests."""

import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from train.cli import RunError
from train.engine import run_directory
from train.export.image_classifier import ImageClassifier
from train.input import augment

AGAIN = "Delete this version and start the run again to export it again."
WARM_UP = (1, 3)  # images in the requests that a server runs before it is available


def endpoints(classifier: ImageClassifier, network: keras.Model) -> dict:
    """Returns the signatures of `train.export` as functions.

    Args:
        classifier: The classifier to export.
        network: Its model, or a folded copy.

    Returns:
        {name: (function, specification of its argument)}.
    """
    serving_model = classifier.serving_model(network)
    features = classifier.feature_model(network)
    names, guesses = classifier.class_names, min(5, len(classifier.class_names))

    def classify(images):
        probabilities = serving_model(images, training=False)["probabilities"]
        scores, indices = tf.math.top_k(probabilities, guesses)
        return {
            "probabilities": probabilities,
            "classes": tf.gather(tf.constant(names), indices),
            "scores": scores,
        }

    def classify_bytes(image_bytes):
        spec = tf.TensorSpec(classifier.shape, tf.uint8)
        return classify(
            tf.map_fn(
                classifier.decode_and_resize, image_bytes, fn_output_signature=spec
            )
        )

    def extract(images):
        return features(images, training=False)

    images = tf.TensorSpec((None, *classifier.shape), tf.uint8, name="images")
    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    functions = {"serving_default": (classify, images), "features": (extract, images)}
    if classifier.shape[-1] in augment.DECODABLE:
        functions["image_bytes"] = classify_bytes, image_bytes
    return functions


def write(
    classifier: ImageClassifier, network: keras.Model, path: pathlib.Path
) -> None:
    """Writes the signatures of `train.export`, labels and warm-up requests.

    Args:
        classifier: The classifier to export.
        network: Its model, or a folded copy.
        path: Path of the new directory.
    """
    # The archive finds the variables that the signatures use. With `track`, it would
    # also store every layer, and trace and store the model's own functions.
    archive = keras.export.ExportArchive()
    for name, (function, spec) in endpoints(classifier, network).items():
        archive.add_endpoint(name, function, [spec])
    archive.write_out(str(path), verbose=False)
    (path / "assets").mkdir(exist_ok=True)
    labels = "\n".join((*classifier.class_names, ""))
    (path / "assets" / "labels.txt").write_text(labels, encoding="utf-8")
    (path / "assets.extra").mkdir()
    requests = path / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(requests)) as writer:
        for request in warm_up_requests(classifier.card["model"], classifier.shape):
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def write_card(path: pathlib.Path, card: dict) -> None:
    """Writes `assets/model.json` of a SavedModel."""
    (path / "assets" / "model.json").write_text(json.dumps(card, indent=2))


def require_results(path: pathlib.Path, results: dict) -> None:
    """Checks that a version of a run has the weights that gave these results.

    Raises:
        RunError: If it has other weights or results, or does not record them.
    """
    try:
        card = json.loads((path / "assets" / "model.json").read_text())
        received, test = card["sha256"], card["test"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        received, test = repr(error), None
    if received != results.get("sha256"):
        raise RunError(
            f"{path} is not an export of the best weights of its run. Expected sha256 "
            f"{results.get('sha256')}. Received: {received}. {AGAIN}"
        )
    for name, *pair in run_directory.differences(test or results, results):
        raise RunError(
            f"{path} and the results.json of its run differ in {name}. Expected "
            f"{pair[0]}, as in the export. Received: {pair[1]}. Delete both and "
            "start the run again to recreate them."
        )


def warm_up_requests(name: str, shape: tuple[int, int, int]) -> list:
    """Returns requests with grey images, which TensorFlow Serving runs at start."""
    requests = []
    for count in WARM_UP:
        images = np.full((count, *shape), 128, np.uint8)
        inputs = {"serving_default": ("images", images)}
        if shape[-1] in augment.DECODABLE:
            encoded = tf.io.encode_png(images[0]).numpy()
            inputs["image_bytes"] = ("image_bytes", np.array([encoded] * count))
        for signature, (key, value) in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            requests.append(request)
    return requests
