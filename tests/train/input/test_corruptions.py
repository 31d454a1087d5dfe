"""Corruptions of images."""

import contextlib

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
from tensorflow_datasets.image_classification import corruptions as originals

from train.cli import RunError
from train.input import corruptions

DETERMINISTIC = (
    *("defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast"),
    *("saturate", "pixelate", "jpeg_compression"),
)


def photo(height, width, channels=3):
    image = sklearn.datasets.load_sample_image("china.jpg")
    image = tf.image.resize(image, (height, width), antialias=True)
    return tf.saturate_cast(image, tf.uint8).numpy()[..., :channels]


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_equal_seeds_give_equal_images_of_the_same_shape(name):
    for image in (photo(30, 40), photo(28, 28, 1)):
        one, again, other = (
            corruptions.corrupt(image, name, 2, (seed, 7)) for seed in (3, 3, 4)
        )
        assert one.shape == image.shape and one.dtype == np.uint8
        assert np.array_equal(one, again)
        assert np.array_equal(one, other) == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", [n for n in corruptions.NAMES if n != "glass_blur"])
def test_images_of_imagenets_size_are_those_of_tensorflow_datasets(name, monkeypatch):
    image, seed = photo(224, 224), (5, 1)
    drawn = np.random.default_rng(seed)
    monkeypatch.setattr("skimage.util.noise.np.random.default_rng", lambda _: drawn)
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))
    with pytest.warns() if name == "elastic_transform" else contextlib.nullcontext():
        expected = getattr(originals, name)(image, 3)
    monkeypatch.undo()
    np.testing.assert_array_equal(
        corruptions.corrupt(image, name, 3, seed), expected.astype(np.uint8)
    )


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "contrast"])
def test_each_severity_is_farther_from_the_image(name):
    image = photo(64, 64)
    distances = [
        np.abs(corruptions.corrupt(image, name, s, (0,)) - image.astype(int)).mean()
        for s in corruptions.SEVERITIES
    ]
    assert distances == sorted(distances) and distances[0] > 1


def test_a_blur_is_as_wide_as_on_imagenet_relative_to_the_image():
    large, small = photo(224, 224), photo(56, 56)
    blurred = corruptions.corrupt(large, "gaussian_blur", 4, (0,))
    expected = tf.image.resize(blurred, (56, 56), antialias=True)
    received = corruptions.corrupt(small, "gaussian_blur", 4, (0,))
    unblurred = np.abs(small - expected).mean()
    assert np.abs(received - expected).mean() < 0.4 * unblurred


def test_one_channel_has_the_noise_of_a_colour():
    grey = photo(64, 64, 1)
    received = corruptions.corrupt(grey, "gaussian_noise", 1, (0,))
    noise = (received.astype(int) - grey)[(grey > 80) & (grey < 175)]
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.05)


def test_numpys_generator_goes_on_as_if_nothing_had_been_drawn():
    np.random.seed(1)
    expected = np.random.random(3)
    np.random.seed(1)
    corruptions.corrupt(photo(32, 32), "shot_noise", 1, (0,))
    np.testing.assert_array_equal(np.random.random(3), expected)


def test_tiny_images_are_refused():
    with pytest.raises(RunError, match="at least 4 pixels. Received: 3x9."):
        corruptions.corrupt(np.zeros((3, 9, 3), np.uint8), "pixelate", 1, (0,))
