"""python -m train.export: the best weights of a run -> a SavedModel for serving.

    python -m train.export --workdir=runs/digits --out=models/digits

Signatures (N images, C classes, k = min(5, C)):

    serving_default  images uint8 (N, height, width, channels)   no resizing
    image_bytes      image_bytes string (N): JPEG or PNG; decoded, resized and cropped
                     as in evaluation
        -> probabilities float32 (N, C), classes string (N, k), scores float32 (N, k)
    features         images -> features float32 (N, D), what the classifier sees
"""

import json
import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from train import checkpoint, classification, command, data

# Of a probability, between the Keras model and its export, by the model's precision.
TOLERANCES = {"float32": 1e-5, "mixed_float16": 5e-3, "mixed_bfloat16": 3e-2}


def export_run(workdir: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Exports the best weights of a run to `out`/STEP, STEP being theirs.

    The version is written aside, loaded again, compared with the Keras model and only
    then gets its number: whoever watches `out` sees whole versions or none.

    Raises:
        RunError: the run has nothing to export, the version is there already, or the
            export does not compute what the model computes.
    """
    model, facts, step = classification.load_best(workdir)
    version = out / str(step)
    if version.exists():
        raise command.RunError(f"{version} exists already. Expected a new version.")
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".writing-{step}"
    shutil.rmtree(aside, ignore_errors=True)  # what a killed export has left
    try:
        write_saved_model(model, facts, _card(workdir, facts, step), aside)
        compare(model, facts, aside)
        os.rename(aside, version)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return version


def _card(workdir, facts, step):
    """model.json of an export: what it is and how well it does."""
    results = workdir / "results.json"
    return {
        "model": facts.recipe.model.name,
        "data": facts.recipe.data.name,
        "step": step,
        "shape": facts.shape,
        "class_names": facts.class_names,
        "data_settings": vars(facts.recipe.data),
        "test": json.loads(results.read_text()) if results.exists() else None,
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
    }


def write_saved_model(
    model: keras.Model, facts: checkpoint.Facts, card: dict, path: pathlib.Path
) -> None:
    """Writes a SavedModel of a model that returns logits.

    Labels (`labels.txt`, one a line) and `card` (`model.json`) are among its assets.
    """
    settings, shape = facts.recipe.data, facts.shape
    features = keras.Model(model.inputs, model.get_layer("avg_pool").output)
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
            lambda encoded: data.fit(data.decode(encoded, shape[-1]), shape),
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
    expected = tf.nn.softmax(model(standardized, training=False))
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


def main(arguments):
    command.no_arguments(arguments)
    workdir = pathlib.Path(flags.FLAGS.workdir)
    out = pathlib.Path(flags.FLAGS.out) if flags.FLAGS.out else workdir / "export"
    print(f"SavedModel in {export_run(workdir, out)}")


if __name__ == "__main__":
    command.run(main, define_flags)
