"""A detector as a SavedModel: Model Garden's signatures, with boxes in given pixels."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf
import tf_keras
from official.vision.serving import detection

from train import files
from train.cli import RunError
from train.detection import network, parameters, run
from train.export import inspection

SIGNATURES = {"image_tensor": "serving_default", "image_bytes": "image_bytes"}
SIDES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.5))  # of the images compared, relative
TOLERANCE = 1e-3  # pixels, and of scores and masks
TIME_LIMIT = 600  # seconds for the answers
ANSWER = pathlib.Path(__file__).with_name("answer.py")


class Detector(detection.DetectionModule):
    """Model Garden's module for serving, with the heads and norms of this package.

    Boxes are (ymin, xmin, ymax, xmax) in pixels of the given images, not of those that
    the network sees.
    """

    def _build_model(self):
        images = tf_keras.layers.InputSpec(
            shape=[self._batch_size, *self._padded_size, 3]
        )
        return network.build_maskrcnn(images, self.params.task.model)

    def serve(self, images):
        outputs = dict(super().serve(images))
        scale = tf.tile(outputs.pop("image_info")[:, 2:3, :], [1, 1, 2])
        outputs["detection_boxes"] /= scale
        return outputs


def of_run(model_dir: pathlib.Path) -> tuple[Detector, int]:
    """Returns the detector of a run's last checkpoint, and its step.

    Raises:
        RunError: If there is none, or it is damaged.
    """
    params = parameters.of_run(model_dir)
    path, step = run.last_checkpoint(model_dir)
    if path is None:
        raise RunError(f"{model_dir} has no checkpoint. Expected one to export.")
    module = Detector(
        params, batch_size=None, input_image_size=params.task.model.input_size[:2]
    )
    try:
        checkpoint = tf.train.Checkpoint(model=module.model)
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except (AssertionError, IndexError, tf.errors.OpError) as error:
        raise RunError(f"{path} is damaged, or of another network: {error}") from error
    return module, step


def class_names(params) -> list[str]:
    """Returns the names of the classes by number; that of 0 is "background".

    Raises:
        RunError: If the run was evaluated with annotations that cannot be read.
    """
    names = ["background", *map(str, range(1, params.task.model.num_classes))]
    file = params.task.annotation_file
    if not file:
        return names
    try:
        for category in json.loads(pathlib.Path(file).read_bytes())["categories"]:
            names[category["id"]] = category["name"]
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise RunError(
            f"No names of classes in {file}. Expected the annotations with which the "
            f"run was evaluated. Received: {error!r}."
        ) from error
    return names


def export(module: Detector, step: int, out: pathlib.Path) -> pathlib.Path:
    """Exports the detector of a run to `out`/STEP, and checks the export.

    It is written to a temporary directory, loaded in a process without Keras and
    without this package, and compared there with the model; then it is moved.

    Returns:
        The directory of the version.

    Raises:
        RunError: If the version exists, or the export does not compute what the model
            computes.
    """
    version = out / str(step)
    with files.new_version(version) as aside:
        labels = "\n".join((*class_names(module.params), ""))
        write(module, aside)
        assets = aside / "assets"
        assets.mkdir(exist_ok=True)
        (assets / "labels.txt").write_text(labels, encoding="utf-8")
        check(module, aside)
    return version


def save_backbone(module: Detector, file: pathlib.Path) -> None:
    """Writes the backbone's weights for `model_zoo.create_model(weights=...)`.

    Raises:
        RunError: If the backbone is not of the zoo.
    """
    if not hasattr(module.model.backbone, "zoo_network"):
        raise RunError(
            "Only a backbone of the zoo can be saved. Expected "
            "task.model.backbone.type=zoo."
        )
    aside = file.with_name(f".writing-{file.name}")
    try:
        module.model.backbone.zoo_network.save_weights(aside)
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def write(module: Detector, path: pathlib.Path) -> None:
    """Writes the signatures and the variables, without the layers of the model."""
    served = tf.Module()
    served.variables_of_model = module.model.variables
    signatures = module.get_inference_signatures(SIGNATURES)
    tf.saved_model.save(served, str(path), signatures=signatures)


def check(module: Detector, path: pathlib.Path, time_limit: int = TIME_LIMIT) -> None:
    """Compares an export, in a process of its own, with the module.

    The images and the answers are written beside the export.

    Raises:
        RunError: If it holds operations that are not allowed, cannot be loaded there in
            time, or its answers differ.
    """
    inspection.require_plain(path)
    images = probe_images(module.params)
    np.savez(path.with_name("images.npz"), *images)
    command = [sys.executable, "-I", str(ANSWER), str(path)]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=time_limit
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"The export did not answer. Expected answers to {len(images)} images "
            f"within {time_limit} seconds."
        ) from error
    if process.returncode:
        raise RunError(f"The export cannot be served. {process.stderr.strip()[-2000:]}")
    with np.load(path.with_name("answers.npz")) as answers:
        for number, image in enumerate(images):
            expected = module.serve(tf.constant(image[np.newaxis]))
            for signature in SIGNATURES.values():
                for name, value in expected.items():
                    received = answers[f"{signature}/{number}/{name}"]
                    difference = np.abs(received - value.numpy()).max(initial=0)
                    if not difference <= TOLERANCE:
                        raise RunError(
                            f"The export differs from the model by {difference:.2g} in "
                            f"{name} of {signature}. Expected up to {TOLERANCE}."
                        )


def probe_images(params) -> list[np.ndarray]:
    """Returns images of other sizes than the network's, with scenes where there are."""
    height, width = params.task.model.input_size[:2]
    random = np.random.default_rng(0)
    images = []
    for rows, columns in SIDES:
        shape = round(height * rows), round(width * columns), 3
        images.append(random.integers(256, size=shape, dtype=np.uint8))
    paths = tf.io.gfile.glob(params.task.validation_data.input_path)
    for record in (
        tf.data.TFRecordDataset(paths[:1]).take(len(SIDES)).as_numpy_iterator()
    ):
        features = tf.train.Example.FromString(record).features.feature
        encoded = features["image/encoded"].bytes_list.value[0]
        images.append(tf.io.decode_image(encoded, channels=3).numpy())
    return images
