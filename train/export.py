"""python -m train.export: the weights of a run -> a SavedModel for serving.

    python -m train.export --workdir=runs/digits --out=models/digits

The best weights on the validation images, or with `--checkpoint=last` those to go on
from, or with `--checkpoint=average` their averages. Attentive normalization is folded
for inference, unless `--nofold`.

Signatures (N images, C classes, k = min(5, C)):

    serving_default  images uint8 (N, height, width, channels)   no resizing
    image_bytes      image_bytes string (N): JPEG or PNG; decoded, resized and cropped
                     as in evaluation
        -> probabilities float32 (N, C), classes string (N, k), scores float32 (N, k)
    features         images -> features float32 (N, D), what the classifier sees
"""

import functools
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from an_keras import fold_for_inference
from an_keras.inference import attentive_layers
from train import augment, checkpoint, classification, command, data

# Of a probability, between the Keras model and its export, by the model's precision.
TOLERANCES = {
    "float64": 1e-5,
    "float32": 1e-5,
    "mixed_float16": 5e-3,
    "mixed_bfloat16": 3e-2,
}
CHECKPOINTS = {
    "best": classification.load_best,
    "last": functools.partial(classification.load_last, averaged=False),
    "average": functools.partial(classification.load_last, averaged=True),
}
WARM_UP = (1, 3)  # images in the requests that a server answers before all others


def export_run(
    workdir: pathlib.Path, out: pathlib.Path, weights: str = "best", fold: bool = True
) -> pathlib.Path:
    """Exports the weights of a run to `out`/STEP, STEP being theirs.

    The version is written aside, loaded again, compared with the Keras model and only
    then gets its number: whoever watches `out` sees whole versions or none.

    Args:
        workdir: of the run.
        out: directory of the versions.
        weights: `"best"`, `"last"` or `"average"`.
        fold: whether `fold_for_inference` removes the statistics from attentive
            normalization.

    Raises:
        RunError: the run has nothing to export, the version is there already, or the
            export does not compute what the model computes.
    """
    model, facts, step = CHECKPOINTS[weights](workdir)
    version = out / str(step)
    if version.exists():
        raise command.RunError(f"{version} exists already. Expected a new version.")
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".writing-{step}"
    shutil.rmtree(aside, ignore_errors=True)  # what a killed export has left
    try:
        is_folded = fold and bool(attentive_layers(model))
        network = fold_for_inference(model) if is_folded else model
        card = _card(workdir, facts, step) | {"weights": weights, "folded": is_folded}
        write_saved_model(network, facts, card, aside)
        require_plain(aside)
        compare(model, facts, aside)
        os.rename(aside, version)
    except tf.errors.OpError as error:
        raise command.RunError(f"{out} takes no export: {error.message}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version


def _card(workdir, facts, step):
    """model.json of an export: what it is and how well it does."""
    return {
        "model": facts.recipe.model.name,
        "data": facts.recipe.data.name,
        "step": step,
        "shape": facts.shape,
        "class_names": facts.class_names,
        "data_settings": vars(facts.recipe.data),
        "test": _test_results(workdir, step),
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }


def _test_results(workdir, step):
    """Those of these weights; `None` where others were tested."""
    path = workdir / "results.json"
    results = json.loads(path.read_text()) if path.exists() else None
    return results if results and results["step"] == step else None


def _features(model):
    """The model up to what its classifier sees, (N, D)."""
    head = [layer for layer in model.layers if layer.weights][-1]
    features = head.input
    if len(features.shape) == 4:  # the classifier is a convolution of one position
        features = keras.layers.GlobalAveragePooling2D()(features)
    return keras.Model(model.inputs, features)


def write_saved_model(
    model: keras.Model, facts: checkpoint.Facts, card: dict, path: pathlib.Path
) -> None:
    """Writes a SavedModel of a model that returns logits.

    Labels (`labels.txt`, one a line) and `card` (`model.json`) are among its assets.
    """
    settings, shape = facts.recipe.data, facts.shape
    features = _features(model)
    guesses = min(5, len(facts.class_names))

    def classify(images):
        logits = model(data.standardize(images, settings), training=False)
        probabilities = tf.nn.softmax(tf.cast(logits, tf.float32))
        scores, indices = tf.math.top_k(probabilities, guesses)
        return {
            "probabilities": probabilities,
            "classes": tf.gather(tf.constant(facts.class_names), indices),
            "scores": scores,
        }

    def classify_bytes(image_bytes):
        images = tf.map_fn(
            lambda encoded: data.fit(augment.decode(encoded, shape[-1]), shape),
            image_bytes,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
        return classify(images)

    def extract(images):
        outputs = features(data.standardize(images, settings), training=False)
        return {"features": tf.cast(outputs, tf.float32)}

    images = tf.TensorSpec((None, *shape), tf.uint8, name="images")
    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", classify, [images])
    archive.add_endpoint("image_bytes", classify_bytes, [image_bytes])
    archive.add_endpoint("features", extract, [images])
    archive.write_out(str(path), verbose=False)
    assets = path / "assets"
    assets.mkdir(exist_ok=True)
    (assets / "labels.txt").write_text("\n".join((*facts.class_names, "")))
    (assets / "model.json").write_text(json.dumps(card, indent=2))
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(
        str(path / "assets.extra" / "tf_serving_warmup_requests")
    ) as writer:
        for request in warm_up_requests(card["model"], shape):
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def warm_up_requests(name: str, shape: tuple[int, int, int]) -> list:
    """What TensorFlow Serving answers before it lets others ask: grey images."""
    requests = []
    for count in WARM_UP:
        images = np.full((count, *shape), 128, np.uint8)
        inputs = {"serving_default": ("images", images)}
        if shape[-1] in (1, 3, 4):
            encoded = tf.io.encode_png(images[0]).numpy()
            inputs["image_bytes"] = ("image_bytes", np.array([encoded] * count))
        for signature, (key, value) in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            requests.append(request)
    return requests


def require_plain(path: pathlib.Path) -> None:
    """That a SavedModel has no function which XLA must compile.

    TensorFlow Serving has XLA switched off on CPUs and refuses such models.

    Raises:
        RunError: it has.
    """
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    compiled = [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
    if compiled:
        raise command.RunError(
            "The export holds compiled functions. Expected none: TensorFlow Serving "
            f"refuses them on a CPU. Received: {', '.join(compiled[:3])}."
        )


def compare(model: keras.Model, facts: checkpoint.Facts, path: pathlib.Path) -> None:
    """Loads an export and compares it with the model, through pixels and through PNG.

    Raises:
        RunError: they differ.
    """
    signatures = tf.saved_model.load(str(path)).signatures
    tolerance = TOLERANCES[facts.recipe.precision]
    images = np.random.default_rng(0).integers(
        0, 256, (3, *facts.shape), dtype=np.uint8
    )
    standardized = data.standardize(images, facts.recipe.data)
    logits = model(standardized, training=False)
    expected = tf.nn.softmax(tf.cast(logits, tf.float32))
    inputs = {"serving_default": {"images": tf.constant(images)}}
    if facts.shape[-1] in (1, 3, 4):
        encoded = [tf.io.encode_png(image) for image in images]
        inputs["image_bytes"] = {"image_bytes": tf.stack(encoded)}
    for name, arguments in inputs.items():
        received = signatures[name](**arguments)["probabilities"]
        difference = float(tf.reduce_max(tf.abs(received - expected)))
        if not difference <= tolerance:
            raise command.RunError(
                f"The export differs from the model. Expected probabilities within "
                f"{tolerance:g} in {name}. Received: a difference of {difference:.2e}."
            )


def define_flags():
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_string("out", None, "Where to put the version; default: RUN/export.")
    flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which weights of the run.")
    flags.DEFINE_bool("fold", True, "Folds attentive normalization for inference.")


def main(arguments):
    command.no_arguments(arguments)
    workdir = pathlib.Path(flags.FLAGS.workdir)
    out = pathlib.Path(flags.FLAGS.out) if flags.FLAGS.out else workdir / "export"
    version = export_run(workdir, out, flags.FLAGS.checkpoint, flags.FLAGS.fold)
    print(f"SavedModel in {version}")


if __name__ == "__main__":
    command.run(main, define_flags)
