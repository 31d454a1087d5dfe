"""A detector as a SavedModel: Model Garden's signatures, with boxes in given pixels."""

import itertools
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
from train.detection import annotations, network, parameters, run
from train.export import inspection

SIGNATURES = {"image_tensor": "serving_default", "image_bytes": "image_bytes"}
SIDES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.5))  # of the noise compared, relative
SCENES = 3  # validation images compared
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

    def _decode_image(self, encoded_image_bytes):
        # Unlike Model Garden's: the first image of an animation, in all formats.
        image = tf.io.decode_image(encoded_image_bytes, 3, expand_animations=False)
        image.set_shape((None, None, 3))
        return image

    def serve(self, images):
        outputs = dict(super().serve(images))
        scale = tf.tile(outputs.pop("image_info")[:, 2:3, :], [1, 1, 2])
        outputs["detection_boxes"] /= scale
        return outputs


def of_run(model_dir: pathlib.Path) -> tuple[Detector, int]:
    """Returns the detector of a run's last checkpoint, and its step.

    Raises:
        RunError: If there is none, it is damaged, or the run keeps averages.
    """
    params = parameters.of_run(model_dir)
    path, step = run.last_checkpoint(model_dir)
    if path is None:
        raise RunError(f"{model_dir} has no checkpoint. Expected one to export.")
    if params.trainer.optimizer_config.ema:
        raise RunError(
            f"{model_dir} was evaluated with averages of its weights, which cannot be "
            "exported. Expected a run without trainer.optimizer_config.ema."
        )
    try:
        module = Detector(
            params, batch_size=None, input_image_size=params.task.model.input_size[:2]
        )
        checkpoint = tf.train.Checkpoint(model=module.model)
        checkpoint.read(path).assert_existing_objects_matched().expect_partial()
    except (*parameters.WRONG, AssertionError, IndexError, tf.errors.OpError) as error:
        raise RunError(f"{path} is damaged, or of another network: {error}") from error
    return module, step


def class_names(params) -> list[str]:
    """Returns the names of the classes by number; that of 0 is "background".

    Raises:
        RunError: If the run was evaluated with annotations that cannot be read, or have
            other classes.
    """
    numbers = range(1, params.task.model.num_classes)
    file = params.task.annotation_file
    if not file:
        return ["background", *map(str, numbers)]
    names = annotations.class_names(pathlib.Path(file))
    if {*names} != {*numbers}:
        raise RunError(
            f"{file} has other classes. Expected {len(numbers)} categories, numbered "
            f"from 1. Received: {len(names)}."
        )
    return ["background", *(names[number] for number in numbers)]


def export(module: Detector, step: int, out: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Exports the detector of a run to `out`/STEP, and checks the export.

    It is written to a temporary directory, loaded in a process without Keras and
    without this package, and compared there with the model; then it is moved.

    Returns:
        The directory of the version, and what was compared, in words.

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
        compared = check(module, aside)
    return version, compared


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


def check(module: Detector, path: pathlib.Path, time_limit: int = TIME_LIMIT) -> str:
    """Compares an export, in a process of its own, with the module.

    The images and the answers are written beside the export.

    Returns:
        What was compared, in words.

    Raises:
        RunError: If it holds operations that are not allowed, cannot be loaded there in
            time, or its answers differ.
    """
    inspection.require_plain(path)
    noise, scenes = probe_noise(module.params), probe_scenes(module.params)
    batches = [*noise, *scenes]
    np.savez(path.with_name("images.npz"), *batches)
    command = [sys.executable, "-I", str(ANSWER), str(path)]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=time_limit
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"The export did not answer. Expected answers to {len(batches)} requests "
            f"within {time_limit} seconds."
        ) from error
    if process.returncode:
        raise RunError(f"The export cannot be served. {process.stderr.strip()[-2000:]}")
    with np.load(path.with_name("answers.npz")) as answers:
        for number, batch in enumerate(batches):
            expected = module.serve(tf.constant(batch))
            for signature in SIGNATURES.values():
                _compare(answers, f"{signature}/{number}", expected)
    return f"equal to the model on {len(noise)} shapes of noise, {len(scenes)} images"


def _compare(answers, request, expected):
    for name, value in expected.items():
        received, key = np.array(np.nan), f"{request}/{name}"
        if key in answers and answers[key].shape == value.shape:
            received = answers[key]
        difference = np.abs(received - value.numpy()).max(initial=0)
        if not difference <= TOLERANCE:
            raise RunError(
                f"The export differs from the model by {difference:.2g} in {key}. "
                f"Expected up to {TOLERANCE}."
            )


def probe_noise(params) -> list[np.ndarray]:
    """Returns pairs of images of noise, also of other shapes than the network's."""
    sides, random = params.task.model.input_size[:2], np.random.default_rng(0)
    shapes = (np.multiply(sides, each).astype(int) for each in SIDES)
    return [random.integers(256, size=(2, *hw, 3), dtype=np.uint8) for hw in shapes]


def probe_scenes(params) -> list[np.ndarray]:
    """Returns the first validation images, each as a batch; empty without records.

    Raises:
        RunError: If the records are damaged.
    """
    paths = [*itertools.chain(*run.files_of(params.task.validation_data).values())]
    images = run.first_images(paths[0], SCENES) if paths else []
    return [
        tf.io.decode_image(encoded, channels=3).numpy()[np.newaxis]
        for _, encoded in images
    ]
