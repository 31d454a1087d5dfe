"""The task: weights of stages, and weights of the zoo in the backbone."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import model_zoo
from model_zoo.blocks import HEAD
from train.cli import RunError, UsageError
from train.detection import experiments, rows, tasks
from train.engine import models

SIDE = 64


def settings(network="resnet14_w16_an", cascade=False):
    experiment = experiments.create_scenes()
    experiment.task.override(
        {
            "model": {
                "input_size": [SIDE, SIDE, 3],
                "backbone": {"zoo": {"name": network}},
                "roi_sampler": {
                    "cascade_iou_thresholds": [0.6, 0.7] if cascade else None
                },
            }
        }
    )
    return experiment.task


def frcnn_outputs(stages, random):
    """Outputs of heads and their targets: 2 images, 5 RoIs, 6 classes."""
    outputs = {}
    for stage in range(stages):
        suffix = f"_{stage}" if stage else ""
        outputs |= {
            f"class_outputs{suffix}": random.normal(size=(2, 5, 6)).astype("float32"),
            f"box_outputs{suffix}": random.normal(size=(2, 5, 24)).astype("float32"),
            f"class_targets{suffix}": random.integers(0, 6, (2, 5)).astype("int32"),
            f"box_targets{suffix}": random.normal(size=(2, 5, 4)).astype("float32"),
        }
    return {name: tf.constant(value) for name, value in outputs.items()}


def test_losses_of_stages_are_weighted_and_summed():
    task_settings = settings(cascade=True)
    weights = [1.0, 0.5, 0.25]
    outputs = frcnn_outputs(3, np.random.default_rng(0))
    alone = []
    for stage in range(3):
        task_settings.stage_weights = [float(i == stage) for i in range(3)]
        task = tasks.MaskRCNNTask(task_settings)
        alone.append([float(x) for x in task._build_frcnn_losses(outputs, {})])
    task_settings.stage_weights = weights
    received = tasks.MaskRCNNTask(task_settings)._build_frcnn_losses(outputs, {})
    expected = np.array(weights) @ np.array(alone)
    np.testing.assert_allclose([float(x) for x in received], expected, rtol=1e-5)


def test_one_stage_has_the_loss_of_model_garden():
    task = tasks.MaskRCNNTask(settings())
    outputs = frcnn_outputs(1, np.random.default_rng(0))
    received = task._build_frcnn_losses(outputs, {})
    expected = super(tasks.MaskRCNNTask, task)._build_frcnn_losses(outputs, {})
    np.testing.assert_allclose(received, expected, rtol=1e-6)


@pytest.mark.parametrize("weights", [[], [1.0, 0.5]])
def test_each_stage_needs_a_weight(weights):
    task_settings = settings()
    task_settings.stage_weights = weights
    with pytest.raises(UsageError, match="Expected 1 numbers in task.stage_weights"):
        tasks.MaskRCNNTask(task_settings).build_model()


@pytest.fixture(scope="module")
def detector():
    return tasks.MaskRCNNTask(settings()).build_model()


@pytest.fixture
def weights_file(tmp_path):
    """Weights of a classifier with the detector's backbone, and the classifier."""
    classifier = model_zoo.create_model("resnet14_w16_an", classes=3)
    path = tmp_path / "classifier.weights.h5"
    classifier.save_weights(path)
    return classifier, str(path)


def test_backbones_have_the_weights_of_a_file(detector, weights_file):
    classifier, path = weights_file
    trunk = [v for v in classifier.weights if not v.path.startswith(HEAD)]
    assert tasks.load_backbone(detector.backbone, path) == len(trunk)
    loaded = detector.backbone.weights_by_path
    for variable in trunk:
        np.testing.assert_array_equal(loaded[variable.path], variable)


def test_loaded_backbones_compute_what_the_classifier_does(detector, weights_file):
    classifier, path = weights_file
    tasks.load_backbone(detector.backbone, path)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3))
    parsed = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    maps = detector.backbone(parsed.astype("float32"), training=False)
    expected = model_zoo.multi_scale(classifier)(
        model_zoo.preprocess_input(images, "resnet14_w16_an")
    )
    for level, map_ in maps.items():
        np.testing.assert_allclose(map_, expected[level], rtol=1e-4, atol=1e-4)


def test_weights_of_other_networks_are_refused(detector, tmp_path):
    path = tmp_path / "other.weights.h5"
    model_zoo.create_model("resnet14_w16_bn").save_weights(path)
    with pytest.raises(UsageError, match=r"task.weights=.*network other than"):
        tasks.load_backbone(detector.backbone, str(path))


@pytest.fixture(scope="module")
def classification_run(command, short_flags, tmp_path_factory):
    """Directory of a run of one step on digits, whose images are gray."""
    run = tmp_path_factory.mktemp("run")
    flags = "--set=model.name=resnet14_w16_an", "--set=data.image_size=32", "--steps=1"
    command("-m", "train", *short_flags, *flags, f"--workdir={run}")
    return run


@pytest.mark.slow
def test_backbones_have_the_weights_of_a_run(detector, classification_run):
    before = detector.backbone.preprocessing
    classifier, spec, _ = models.load_best(classification_run)
    data = spec.recipe.data
    detector.backbone.preprocessing = dataclasses.replace(
        before, mean=data.mean, std=data.std
    )
    tasks.load_backbone(detector.backbone, str(classification_run))
    detector.backbone.preprocessing = before
    loaded = detector.backbone.weights_by_path
    stem, *others = [v for v in classifier.weights if not v.path.startswith(HEAD)]
    np.testing.assert_allclose(
        tf.reduce_sum(loaded[stem.path], axis=2), stem[..., 0, :], rtol=1e-5
    )
    for variable in others:
        np.testing.assert_array_equal(loaded[variable.path], variable)


@pytest.mark.slow
def test_runs_on_images_of_another_mean_are_refused(detector, classification_run):
    with pytest.raises(UsageError, match=r"task.model.backbone.zoo.mean=\[0\.\d+\]"):
        tasks.load_backbone(detector.backbone, str(classification_run))


@pytest.mark.parametrize("weights", ["imagenet", "none.weights.h5"])
def test_unknown_weights_are_refused(detector, weights):
    with pytest.raises(UsageError, match=f"task.weights={weights}"):
        tasks.load_backbone(detector.backbone, weights)


def test_directories_that_are_no_runs_are_refused(detector, tmp_path):
    with pytest.raises(RunError, match="not the directory of a run"):
        tasks.load_backbone(detector.backbone, str(tmp_path))


def test_weights_need_a_backbone_of_the_zoo():
    with pytest.raises(UsageError, match="backbone.type=zoo only"):
        tasks.load_backbone(object(), "imagenet")


def test_rows_name_networks_of_the_zoo():
    names = {row.network for row in rows.EXPERIMENTS.values()}
    assert names <= {*model_zoo.list_models()}
