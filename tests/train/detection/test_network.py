"""Mask R-CNN with networks of the zoo: parameters, frozen parts, norms."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import model_zoo
from train.detection import configs, facade, network

SIDE = 128  # pixels of the images
AN_GN = {"pyramid": "gn", "box_head": "an_gn", "mask_head": "gn"}
CASCADE = {
    "roi_sampler": {"cascade_iou_thresholds": [0.6, 0.7]},
    "detection_head": {
        **{"num_convs": 0, "num_fcs": 2},
        "class_agnostic_bbox_pred": True,
    },
}
# The paper's detectors have 80 classes and the background. Its Cascade R-CNN has a
# mask head in each of its three stages, Model Garden's has one.
MASK_HEAD = 4 * (9 * 256 + 1) * 256 + (4 * 256 + 1) * 256 + 257 * 81


def build(name, l2=None, **overrides):
    config = configs.MaskRCNN(num_classes=81, input_size=[SIDE, SIDE, 3])
    config.override({"backbone": {"zoo": {"name": name}}, **overrides})
    images = tf_keras.layers.InputSpec(shape=[None, SIDE, SIDE, 3])
    return network.build_maskrcnn(images, config, l2)


def parameters(model):
    """Parameters as PyTorch counts them: without moving statistics."""
    counted = [v for v in model.weights if "moving_" not in v.name]
    return sum(v.shape.num_elements() for v in counted)


def row(name, norms, millions, *marks):
    return pytest.param(name, norms, millions, marks=marks)


@pytest.mark.parametrize(
    ("name", "norms", "millions"),
    [
        row("resnet50_bn", {}, 45.71, pytest.mark.long),
        row("resnet50_an", {}, 45.91, pytest.mark.long),
        row("resnet50_an", AN_GN, 45.96, pytest.mark.slow),
        row("resnet101_bn", {}, 64.70, pytest.mark.long),
        row("resnet101_an", {}, 65.15, pytest.mark.long),
        row("resnet101_an", AN_GN, 65.20, pytest.mark.long),
        row("aognet_12m_bn", {}, 33.09, pytest.mark.long),
        row("aognet_12m_an", {}, 33.21, pytest.mark.long),
        row("aognet_12m_an", AN_GN, 33.26, pytest.mark.long),
        row("aognet_40m_bn", {}, 60.73, pytest.mark.long),
        row("aognet_40m_an", {}, 60.97, pytest.mark.long),
        row("aognet_40m_an", AN_GN, 61.02, pytest.mark.long),
    ],
)
def test_parameters_are_those_of_the_published_detectors(name, norms, millions):
    received = parameters(build(name, norms=norms))
    assert received / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet101_bn", 96.32),
        ("resnet101_an", 96.77),
        ("aognet_40m_bn", 92.35),
        ("aognet_40m_an", 92.58),
    ],
)
def test_parameters_of_cascades_lack_two_mask_heads_of_the_published(name, millions):
    received = parameters(build(name, **CASCADE)) + 2 * MASK_HEAD
    assert received / 1e6 == pytest.approx(millions, abs=0.01)


def parsed_images(side):
    """Images as Model Garden's parser prepares them, and their pixels."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3))
    parsed = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return parsed.astype("float32"), pixels.astype("float32")


@pytest.fixture(scope="module")
def detector():
    return build("resnet14_w16_an", tf_keras.regularizers.L2(0.5), norms=AN_GN)


@pytest.mark.slow
def test_stem_and_first_stage_are_frozen_and_their_weights_not_decayed(detector):
    backbone = detector.backbone
    trained = {id(v) for v in backbone.trainable_weights}
    frozen = [p for p, v in backbone.weights_by_path.items() if id(v) not in trained]
    frozen = [path for path in frozen if "moving_" not in path]
    assert frozen and all(path.startswith(("stem", "stage")) for path in frozen)
    deep = backbone.keras_layer.layers[-1].name.split("_")[0]
    assert not [path for path in frozen if path.startswith(deep)]
    expected = sum(
        0.5 * float(tf.reduce_sum(tf.square(v))) for v in detector.trainable_weights
    )
    assert float(sum(detector.losses)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_norms_of_the_backbone_use_moving_statistics_in_training(detector):
    parsed, pixels = parsed_images(SIDE)
    moving = [v for v in detector.non_trainable_weights if "moving_" in v.name]
    before = [v.numpy() for v in moving]
    received = detector.backbone(parsed, training=True)
    images = model_zoo.preprocess_input(pixels, "resnet14_w16_an")
    expected = detector.backbone.keras_layer(images, training=False)
    for level in expected:
        np.testing.assert_allclose(received[level], expected[level], atol=1e-4)
    assert moving and all(map(np.array_equal, before, moving))


@pytest.mark.slow
def test_maps_of_the_pyramid_reach_all_heads(detector):
    images = tf.zeros((1, SIDE, SIDE, 3))
    outputs = detector(images, image_shape=tf.constant([[SIDE, SIDE]]), training=False)
    assert set(outputs["rpn_scores"]) == {"2", "3", "4", "5", "6"}
    assert outputs["detection_masks"].shape == (1, 100, 28, 28)
    assert outputs["detection_boxes"].shape == (1, 100, 4)


@pytest.mark.slow
def test_all_norms_compute_with_mixed_precision():
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        detector = build("resnet14_w16_an", norms=AN_GN)
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
    facades = [
        layer.keras_layer
        for layer in detector.submodules
        if isinstance(layer, facade.KerasLayer)
    ]
    assert len(facades) == 1 + 8 + 4 + 4  # backbone, pyramid, box and mask head
    assert {layer.compute_dtype for layer in facades} == {"bfloat16"}
    assert {v.dtype.base_dtype for v in detector.trainable_weights} == {tf.float32}
    images = tf.zeros((1, SIDE, SIDE, 3))
    outputs = detector(images, image_shape=tf.constant([[SIDE, SIDE]]), training=False)
    assert np.isfinite(outputs["detection_boxes"]).all()


@pytest.mark.slow
def test_images_are_converted_to_what_the_network_expects():
    zoo = configs.Zoo(name="applications.ANMobileNetV2", frozen_level=0)
    images = tf_keras.layers.InputSpec(shape=[None, 64, 64, 3])
    backbone = network.build_backbone(images, configs.Backbone(zoo=zoo))
    parsed, pixels = parsed_images(64)
    received = backbone(parsed)
    expected = backbone.keras_layer(pixels / 127.5 - 1)
    for level, map_ in expected.items():
        np.testing.assert_allclose(received[level], map_, rtol=1e-3, atol=1e-4)
