"""Batches: order, augmentation and exact evaluation."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from train.input import pipeline


def take(digits, start, stop, seed=0, batch_size=16):
    batches = pipeline.training_batches(digits, seed, batch_size, start, stop)
    return [(x.numpy(), y.numpy()) for x, y in batches]


def test_order_and_augmentation_depend_on_seed_and_step_only(digits):
    whole, tail = take(digits, 0, 90), take(digits, 85, 90)
    assert len(whole) == 90
    for (x, y), (x_again, y_again) in zip(whole[85:], tail, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
    other = take(digits, 85, 90, seed=1)
    assert not np.array_equal(np.stack([y for _, y in tail]), [y for _, y in other])


def test_epoch_contains_every_image_once(digits):
    settings = dataclasses.replace(digits.settings, shift=0)
    plain = dataclasses.replace(digits, settings=settings)
    count = len(plain.splits["train"])
    batches = pipeline.training_batches(plain, 3, 1, 0, 2 * count)
    images = [x.numpy().tobytes() for x, _ in batches]
    first, second = images[:count], images[count:]
    assert sorted(first) == sorted(second)
    assert first != second
    expected = [
        pipeline.standardize(pipeline.evaluation_image(plain, entry), settings)
        for entry in plain.splits["train"].images
    ]
    assert sorted(first) == sorted(image.numpy().tobytes() for image in expected)


@pytest.mark.parametrize("batch_size", [1, 64, 355, 1000])
def test_evaluation_sees_every_image_once_at_any_batch_size(digits, batch_size):
    seen, total = [], 0
    for images, labels, weights in pipeline.evaluation_batches(
        digits, "test", batch_size
    ):
        assert images.shape == (batch_size, 8, 8, 1)
        seen.extend(labels.numpy()[weights.numpy() == 1])
        total += 1
    assert total == digits.splits["test"].evaluation_steps(batch_size, replicas=1)
    np.testing.assert_array_equal(seen, digits.splits["test"].labels)


def test_standardized_digits_have_mean_0_and_deviation_1(digits):
    from train import recipes

    settings = recipes.create_recipe("digits").data
    images = [
        pipeline.evaluation_image(digits, e) for e in digits.splits["train"].images
    ]
    x = pipeline.standardize(tf.stack(images), settings).numpy()
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01
