"""Image geometry."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image
from PIL.Image import Resampling

from model_zoo import preprocessing
from train.input import augment

SEED = (7, 1)


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3))
    return tf.constant(pixels, tf.uint8)


@pytest.mark.parametrize(
    "function",
    [
        lambda image, seed: tf.image.resize(
            augment.decode_random_part(tf.io.encode_png(image), 3, 0.2, seed), (8, 8)
        ),
        lambda image, seed: augment.random_shift(image, 3, seed),
        lambda image, seed: augment.random_flip(image, seed),
    ],
)
def test_images_depend_on_the_seed_only(image, function):
    first = function(image, SEED)
    np.testing.assert_array_equal(first, function(image, SEED))
    others = [function(image, (seed, 0)).numpy() for seed in range(16)]
    assert any(not np.array_equal(first, other) for other in others)


def test_image_of_the_right_size_is_unchanged(image):
    fitted = augment.resize_and_crop(image, (13, 17))
    np.testing.assert_array_equal(fitted, tf.cast(image, tf.float32))


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (40, 5), (300, 301)])
def test_images_of_any_shape_are_fitted(shape):
    image = tf.fill((*shape, 3), tf.constant(200, tf.uint8))
    fitted = augment.resize_and_crop(image, (8, 8))
    assert fitted.shape == (8, 8, 3)
    np.testing.assert_allclose(fitted, 200, atol=1e-3)


def test_centre_is_cropped():
    columns = tf.range(30, dtype=tf.float32)
    image = tf.tile(columns[tf.newaxis, :, tf.newaxis], (10, 1, 1))
    fitted = augment.resize_and_crop(image, (10, 10))
    np.testing.assert_allclose(fitted[0, :, 0], np.arange(10, 20))


@pytest.mark.parametrize("shape", [(28, 28), (31, 77), (500, 40), (20, 23)])
def test_resizing_equals_that_of_the_zoo(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = preprocessing.resize_and_crop(pixels, 28, 24)
    received = augment.resize_and_crop(tf.constant(pixels), (24, 24), 28)
    np.testing.assert_allclose(received, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("interpolation", "filter_of_pillow"),
    [("bilinear", Resampling.BILINEAR), ("bicubic", Resampling.BICUBIC)],
)
def test_resizing_equals_that_of_pillow(interpolation, filter_of_pillow):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    resized = Image.fromarray(pixels).resize((48, 32), filter_of_pillow)
    expected = np.asarray(resized, int)[4:28, 12:36]
    received = augment.to_input_size(
        tf.constant(pixels), (24, 24, 3), 32, interpolation
    )
    assert np.abs(expected - received.numpy()).max() <= 1


def test_shift_is_limited_and_filled_with_black():
    image = tf.ones((8, 8, 1), tf.uint8)
    sums = {
        int(tf.reduce_sum(augment.random_shift(image, 2, (seed, 0))))
        for seed in range(64)
    }
    assert sums == {(8 - x) * (8 - y) for x in range(3) for y in range(3)}


def test_half_of_the_images_are_mirrored(image):
    flipped = [
        not np.array_equal(augment.random_flip(image, (seed, 0)), image)
        for seed in range(200)
    ]
    assert 70 <= sum(flipped) <= 130


def test_mixup_mixes_pairs_of_images_with_one_share():
    images = tf.one_hot(tf.range(6), 6)[:, tf.newaxis, tf.newaxis]
    labels = tf.range(6, dtype=tf.int64)
    mixed, own, others, share = augment.mixup(images, labels, 0.2, SEED)
    np.testing.assert_array_equal(own, labels)
    assert sorted(others.numpy()) == list(range(6))
    assert len(set(share.numpy())) == 1
    expected = share[0] * images + (1 - share[0]) * tf.gather(images, others)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_mixup_of_the_release_pairs_images_from_both_ends_and_rounds():
    images = tf.constant(np.arange(4)[:, None, None, None] * 50, tf.uint8)
    mixed, _, others, share = augment.mixup(images, tf.range(4), 1.0, SEED, True)
    np.testing.assert_array_equal(others, [3, 2, 1, 0])
    exact = share * [0, 50, 100, 150] + (1 - share) * [150, 100, 50, 0]
    np.testing.assert_array_equal(mixed[:, 0, 0, 0], np.round(exact))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_shares_follow_the_beta_distribution(alpha):
    images, labels = tf.zeros((2, 1, 1, 1)), tf.zeros(2, tf.int64)
    shares = tf.function(tf.map_fn)(
        lambda seed: augment.mixup(images, labels, alpha, (seed, 3))[3][0],
        tf.range(4000),
        fn_output_signature=tf.float32,
    )
    difference = scipy.stats.kstest(shares.numpy(), scipy.stats.beta(alpha, alpha).cdf)
    assert difference.pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_part_of_a_jpeg_equals_the_crop_of_the_decoded_image(channels):
    """Decoding only a part saves work without changing the result."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, channels))
    smooth = tf.image.resize(pixels, (97, 131), "bicubic")
    pixels = tf.saturate_cast(smooth, tf.uint8)
    jpeg = tf.io.encode_jpeg(pixels, chroma_downsampling=False)
    png = tf.io.encode_png(tf.io.decode_jpeg(jpeg))
    for number in range(30):
        seed = (number, 0)
        part = augment.decode_random_part(jpeg, channels, 0.1, seed)
        expected = augment.decode_random_part(png, channels, 0.1, seed)
        np.testing.assert_array_equal(part, expected)


def test_random_parts_have_the_published_areas_and_ratios(image):
    larger = tf.saturate_cast(tf.image.resize(image, (90, 120)), tf.uint8)
    encoded = tf.io.encode_png(larger)
    shapes = np.array(
        [
            augment.decode_random_part(encoded, 3, 0.25, (number, 0)).shape[:2]
            for number in range(300)
        ]
    )
    areas, ratios = shapes.prod(axis=1) / (90 * 120), shapes[:, 1] / shapes[:, 0]
    assert areas.min() >= 0.24 and areas.max() > 0.9
    assert ratios.min() >= 0.74 and ratios.max() <= 1.36
