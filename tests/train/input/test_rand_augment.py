"""RandAugment depends only on the seed."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from train.input import rand_augment

COUNT = 14


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).uniform(0, 256, (6, 7, 3))
    smooth = tf.image.resize(pixels, (32, 40), "bicubic")
    image = tf.saturate_cast(0.5 * smooth + 40.0, tf.uint8)  # some contrast to gain
    return tf.tensor_scatter_nd_update(image, [[0, 0, 0]], [tf.constant(255, tf.uint8)])


def test_operations_with_a_level_do_nothing_at_level_0(image):
    """Autocontrast and equalize have no level."""
    assert len(rand_augment.operations()) == COUNT
    changed = [
        number
        for number, operation in enumerate(rand_augment.operations())
        if not np.array_equal(operation(image, 0.0, 1.0), image)
    ]
    assert changed == [1, 2]


def test_operations_get_stronger_with_the_level_in_both_directions(image):
    def distance(operation, level, sign):
        changed = operation(image, level, sign)
        assert changed.shape == image.shape and changed.dtype == tf.uint8
        return np.abs(np.float32(changed) - np.float32(image)).mean()

    for number, operation in enumerate(rand_augment.operations()[3:], start=3):
        for sign in (-1.0, 1.0):
            weak, strong = (distance(operation, level, sign) for level in (0.1, 1.0))
            assert weak < strong, number


@pytest.mark.slow
def test_equal_seeds_give_equal_images_in_a_pipeline(image):
    def images(first):
        positions = tf.data.Dataset.range(first, 40)
        return positions.map(
            lambda position: rand_augment.rand_augment(
                image, 9.0, tf.stack([3, position])
            ),
            tf.data.AUTOTUNE,
        )

    whole, tail = ([x.numpy() for x in images(first)] for first in (0, 30))
    np.testing.assert_array_equal(whole[30:], tail)
    assert len({x.tobytes() for x in whole}) > 20


def test_operations_are_drawn_equally_often(image, monkeypatch):
    marks = tuple(
        lambda image, level, sign, mark=mark: image * 16 + tf.constant(mark, tf.uint8)
        for mark in range(COUNT)
    )
    monkeypatch.setattr(rand_augment, "operations", lambda: marks)
    blank = tf.zeros((1, 1, 3), tf.uint8)

    @tf.function
    def draw(seed):
        return rand_augment.rand_augment(blank, 5.0, seed)[0, 0, 0]

    pairs = collections.Counter(
        divmod(int(draw(tf.constant((number, 1)))), 16) for number in range(1400)
    )
    for turn in (0, 1):
        counts = collections.Counter()
        for pair, count in pairs.items():
            counts[pair[turn]] += count
        assert sorted(counts) == list(range(COUNT))
        assert 65 <= min(counts.values()) and max(counts.values()) <= 140
    assert len(pairs) > 180  # of 196: the two are drawn independently
