"""The SavedModel of an export: signatures, assets, requests to warm a server up."""

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

AGAIN = "Without it the run, started again, exports again."
WARM_UP = (1, 3)  # images in the requests that a server answers before all others


def endpoints(source: ImageClassifier, network: keras.Model) -> tuple[dict, list]:
    """The signatures of `train.export` as functions, and the models that they call.

    Args:
        source: what is exported.
        network: its model, or a folded copy.

    Returns:
        {name: (function, specification of its argument)}, [models].
    """
    classifier = source.serving_model(network)
    features = source.feature_model(network)
    names, guesses = source.class_names, min(5, len(source.class_names))

    def classify(images):
        probabilities = classifier(images, training=False)["probabilities"]
        scores, indices = tf.math.top_k(probabilities, guesses)
        return {
            "probabilities": probabilities,
            "classes": tf.gather(tf.constant(names), indices),
            "scores": scores,
        }

    def classify_bytes(image_bytes):
        spec = tf.TensorSpec(source.shape, tf.uint8)
        return classify(tf.map_fn(source.fit, image_bytes, fn_output_signature=spec))

    def extract(images):
        return features(images, training=False)

    images = tf.TensorSpec((None, *source.shape), tf.uint8, name="images")
    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    functions = {"serving_default": (classify, images), "features": (extract, images)}
    if source.shape[-1] in augment.DECODABLE:
        functions["image_bytes"] = classify_bytes, image_bytes
    return functions, [classifier, features]


def write(source: ImageClassifier, network: keras.Model, path: pathlib.Path) -> None:
    """Writes the signatures of `train.export`, labels and warm-up requests.

    Args:
        source: what is exported.
        network: its model, or a folded copy.
        path: of the new directory.
    """
    functions, models = endpoints(source, network)
    archive = keras.export.ExportArchive()
    for model in models:
        archive.track(model)
    for name, (function, spec) in functions.items():
        archive.add_endpoint(name, function, [spec])
    archive.write_out(str(path), verbose=False)
    (path / "assets").mkdir(exist_ok=True)
    labels = "\n".join((*source.class_names, ""))
    (path / "assets" / "labels.txt").write_text(labels, encoding="utf-8")
    (path / "assets.extra").mkdir()
    requests = path / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(requests)) as writer:
        for request in warm_up_requests(source.card["model"], source.shape):
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def write_card(path: pathlib.Path, card: dict) -> None:
    """`assets/model.json` of a SavedModel."""
    (path / "assets" / "model.json").write_text(json.dumps(card, indent=2))


def require_results(path: pathlib.Path, results: dict) -> None:
    """That a version of a run is of the weights that these results are of.

    Raises:
        RunError: it is of others, has other results, or does not say.
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
            f"{pair[0]}, as in the export. Received: {pair[1]}. Without both of them "
            "the run, started again, makes them anew."
        )


def warm_up_requests(name: str, shape: tuple[int, int, int]) -> list:
    """What TensorFlow Serving answers before it lets others ask: grey images."""
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
