"""Exports of detectors: signatures, boxes, the check in another process, pictures."""

import csv
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from official.core import train_utils
from official.vision.serving import detection
from PIL import Image

import model_zoo
from train.cli import FAILED, USAGE, RunError
from train.detection import drawing, parameters, predict, serving, tasks
from train.detection import export as export_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A run of which only the initial weights were saved, as step 7."""
    path = tmp_path_factory.mktemp("run")
    params = parameters.parse("an_maskrcnn_scenes", [str(config)], None)
    train_utils.serialize_config(params, str(path))
    model = tasks.MaskRCNNTask(params.task).build_model()
    tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model), str(path), None, checkpoint_name="ckpt"
    ).save(7)
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    version, compared = serving.export(*serving.of_run(run), out)
    assert compared == "equal to the model on 3 shapes of noise, 3 images"
    return version


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def test_export_is_a_version_with_the_names_of_the_classes(exported):
    assert exported.name == "7"
    assert [path.name for path in exported.parent.iterdir()] == ["7"]
    labels = (exported / "assets" / "labels.txt").read_text().splitlines()
    assert labels == ["background", "0", "1", "2"]


def test_boxes_are_in_pixels_of_the_image(run):
    module, _ = serving.of_run(run)
    random = np.random.default_rng(0)
    images = tf.constant(random.integers(256, size=(2, 64, 128, 3), dtype=np.uint8))
    received = module.serve(images)
    expected = detection.DetectionModule.serve(module, images)
    np.testing.assert_allclose(
        received["detection_boxes"], expected["detection_boxes"] * 2, rtol=1e-5
    )
    assert received["num_detections"].numpy().min() > 0
    assert 64 < received["detection_boxes"].numpy().max() <= 128


def test_other_outputs_than_the_models_are_found(run, exported, tmp_path):
    module, _ = serving.of_run(run)
    copy = shutil.copytree(exported, tmp_path / "7")
    for variable in module.model.detection_head[0].trainable_variables:
        variable.assign(variable + 0.1)
    with pytest.raises(RunError, match="The export differs from the model by"):
        serving.check(module, copy)
    with pytest.raises(RunError, match="answers to 6 requests within 1 seconds"):
        serving.check(module, copy, time_limit=1)
    shutil.rmtree(copy / "variables")
    with pytest.raises(RunError, match="The export cannot be served"):
        serving.check(module, copy)


def test_a_version_is_not_replaced(run, exported, call):
    flags = f"--model_dir={run}", f"--out={exported.parent}"
    errors = call(export_command, *flags, expected=FAILED).stderr
    assert "already exists" in errors


def test_backbone_returns_to_the_zoo(run, tmp_path, call):
    file = tmp_path / "backbone.weights.h5"
    call(export_command, f"--model_dir={run}", f"--backbone={file}")
    network = model_zoo.create_model(
        "resnet14_w16_an", weights=file, include_top=False, input_shape=(64, 64, 3)
    )
    module, _ = serving.of_run(run)
    trained = module.model.backbone.zoo_network
    for received, expected in zip(network.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(received, expected)
    reader = tf.train.load_checkpoint(str(run))
    stored = [reader.get_tensor(name) for name in reader.get_variable_to_shape_map()]
    kernel = network.weights[0].numpy()
    assert any(np.array_equal(kernel, each) for each in stored)
    flags = f"--model_dir={run}", f"--backbone={tmp_path / 'other.h5'}"
    errors = call(export_command, *flags, expected=USAGE).stderr
    assert "to end with .weights.h5" in errors


def test_names_of_classes_need_the_annotations(run, tmp_path):
    params = parameters.of_run(run)
    params.task.annotation_file = str(tmp_path / "missing.json")
    with pytest.raises(RunError, match=r"missing.json is missing"):
        serving.class_names(params)
    params.task.annotation_file = ""
    assert serving.class_names(params) == ["background", "1", "2", "3"]


def test_runs_without_weights_are_refused(run, tmp_path, call):
    errors = call(export_command, f"--model_dir={tmp_path}", expected=USAGE).stderr
    assert "no params.yaml" in errors
    shutil.copy(run / "params.yaml", tmp_path)
    errors = call(export_command, f"--model_dir={tmp_path}", expected=FAILED).stderr
    assert "no checkpoint" in errors
    (tmp_path / "params.yaml").write_text("task: {model: {heads: 3}}")
    errors = call(export_command, f"--model_dir={tmp_path}", expected=FAILED).stderr
    assert "params.yaml is damaged" in errors and "--params_override" not in errors


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_classes: 4", "num_classes: 5", "of another network"),
        ("name: resnet14_w16_an", "name: none", "of another network"),
        ("box_head: an_gn", "box_head: x", "of another network"),
        ("ema: null", "ema: {average_decay: 0.9}", "averages of its weights"),
    ],
)
def test_runs_with_other_parameters_are_refused(run, tmp_path, old, new, message):
    copy = shutil.copytree(run, tmp_path / "run")
    text = (copy / "params.yaml").read_text()
    assert old in text
    (copy / "params.yaml").write_text(text.replace(old, new))
    with pytest.raises(RunError, match=message):
        serving.of_run(copy)


def test_one_thing_is_written(run, tmp_path, call):
    flags = f"--backbone={tmp_path}/a.weights.h5", f"--out={tmp_path}"
    errors = call(export_command, f"--model_dir={run}", *flags, expected=USAGE).stderr
    assert "Received: both" in errors


def test_objects_are_listed_and_drawn(exported, signatures, coco, tmp_path, call):
    image = coco / "val2017" / "000001.jpg"
    flags = f"--out={tmp_path / 'out'}", f"--csv={tmp_path}/objects.csv", "--least=0"
    output = call(predict, str(exported), str(image), *flags).stdout
    header, *lines = output.splitlines()
    assert header.split() == [*predict.COLUMNS]
    answer = signatures["serving_default"](
        tf.io.decode_image(image.read_bytes())[tf.newaxis]
    )
    assert len(lines) == int(answer["num_detections"][0]) > 0
    assert all(line.split()[1] in "012" for line in lines)
    with (tmp_path / "objects.csv").open(newline="") as file:
        listed = [[*row.values()] for row in csv.DictReader(file)]
    assert listed == [line.split() for line in lines]
    scores = [float(line.split()[2]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    with Image.open(tmp_path / "out" / "0001-000001.png") as picture:
        assert picture.size == (512, 512)


def test_exports_that_do_more_than_compute_are_not_loaded(tmp_path):
    class Writer(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.uint8)])
        def __call__(self, images):
            tf.io.write_file(str(tmp_path / "written"), "a")
            return images

    tf.saved_model.save(Writer(), str(tmp_path / "1"))
    with pytest.raises(RunError, match="operations that are not allowed"):
        drawing.Export(tmp_path / "1", 0.5)


def test_exports_of_other_models_are_refused(tmp_path):
    class Classifier(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)])
        def __call__(self, images):
            return {"classes": images}

    model = Classifier()
    path = tmp_path / "1"
    tf.saved_model.save(model, str(path), {"serving_default": model.__call__})
    (path / "assets").mkdir(exist_ok=True)
    (path / "assets" / "labels.txt").write_text("a\n")
    with pytest.raises(RunError, match=r"is not a detector.*Received: classes"):
        drawing.Export(path, 0.5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "assets" / "labels.txt").write_bytes(b"\xff"), "damaged"),
        (lambda path: (path / "assets" / "labels.txt").write_text(""), "labels.txt"),
        (lambda path: cut(*(path / "variables").glob("*.data*")), "is damaged"),
        (lambda path: cut(path / "saved_model.pb"), "is damaged"),
    ],
)
def test_damaged_exports_are_refused(exported, coco, tmp_path, call, damage, message):
    copy = shutil.copytree(exported, tmp_path / "7")
    damage(copy)
    image = coco / "val2017" / "000001.jpg"
    flags = str(copy), str(image), "--least=0"
    assert message in call(predict, *flags, expected=FAILED).stderr


def cut(path):
    path.write_bytes(path.read_bytes()[:10_000])


def test_lines_of_earlier_images_are_printed(exported, coco, tmp_path, call):
    narrow = tmp_path / "narrow.png"
    Image.new("RGB", (2000, 1)).save(narrow)
    images = str(coco / "val2017" / "000001.jpg"), str(narrow)
    done = call(predict, str(exported), *images, "--least=1", expected=FAILED)
    assert re.search(r"000001.jpg +-( +-){5}$", done.stdout, re.MULTILINE)
    assert "narrow.png is not an image for this detector" in done.stderr
    assert "Received: height 1, width 2000" in done.stderr


def test_requests_may_be_gif_files(signatures, tmp_path):
    random = np.random.default_rng(0)
    frames = random.integers(256, size=(3, 64, 64), dtype=np.uint8)
    first, *others = map(Image.fromarray, frames)
    image = np.repeat(frames[:1, ..., np.newaxis], 3, axis=-1)
    expected = signatures["serving_default"](tf.constant(image))
    for animated in (False, True):
        first.save(tmp_path / "a.gif", save_all=animated, append_images=others)
        encoded = tf.constant([(tmp_path / "a.gif").read_bytes()])
        received = signatures["image_bytes"](encoded)
        for name, value in expected.items():
            np.testing.assert_allclose(received[name], value, atol=1e-3)


def test_pictures_show_masks_within_boxes():
    image = np.zeros((64, 128, 3), np.uint8)
    boxes = np.array([[16.0, 32.0, 48.0, 96.0]])
    found = drawing.Objects(
        image, boxes, np.array([1]), np.array([0.75]), np.ones((1, 28, 28)), ["", "cat"]
    )
    assert found.rows() == [("cat", "0.750", "32.0", "16.0", "64.0", "32.0")]
    pixels = np.array(found.picture()).any(axis=-1)
    assert pixels.shape == (256, 512)
    assert pixels[70:186, 134:378].all()  # the mask
    assert not pixels[200:].any() and not pixels[:, :120].any()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), USAGE, "Expected the directory of an export, and images"),
        (("{empty}", "{image}"), USAGE, "Expected an export"),
        (("{export}", "{empty}"), USAGE, "Expected images"),
        (("{export}", "{image}", "--out={empty}"), USAGE, "--out to be new"),
        (("{export}", "{labels}"), FAILED, "cannot be read as an image"),
    ],
)
def test_wrong_arguments_are_named(
    exported, coco, tmp_path, call, arguments, code, message
):
    places = {
        "export": exported,
        "empty": tmp_path,
        "image": coco / "val2017" / "000001.jpg",
        "labels": exported / "assets" / "labels.txt",
    }
    given = [argument.format(**places) for argument in arguments]
    assert message in call(predict, *given, expected=code).stderr
