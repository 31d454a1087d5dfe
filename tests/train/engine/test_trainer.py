"""The evaluator that records answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from train import config
from train.engine import trainer
from train.input import dataset, pipeline

SETTINGS = config.Data("digits", mean=(0.5,), std=(0.25,))

# Run with two devices in a process of its own: the arguments are two directories.
TWO_DEVICES = """
import sys

import keras
import numpy as np
import tensorflow as tf

import train
from train import config
from train.engine import strategies, trainer
from train.input import dataset

strategy = strategies.create("mirrored", 2)
data = dataset.load(config.Data("digits", mean=(0.5,), std=(0.25,)), sys.argv[1])
with strategy.scope():
    model = keras.models.load_model(sys.argv[2] + "/model.keras")
evaluator = trainer.RecordingEvaluator(strategy, model, data, "test", 14)
evaluator.run()
np.savez(sys.argv[2] + "/two.npz", *evaluator.answers)
"""


@pytest.fixture(scope="module")
def digits(data_dir):
    return dataset.load(SETTINGS, str(data_dir))


@pytest.fixture
def model():
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    return keras.Sequential(layers)


def record(model, data, batch_size):
    evaluator = trainer.RecordingEvaluator(
        tf.distribute.get_strategy(), model, data, "test", batch_size
    )
    return evaluator.run(), evaluator.answers


@pytest.mark.parametrize("batch_size", [7, 355, 512])
def test_answers_are_those_of_the_model_and_agree_with_top1(digits, model, batch_size):
    metrics, (labels, guesses, probabilities) = record(model, digits, batch_size)
    batches = pipeline.evaluation_batches(digits, "test", 355)
    images, expected, _ = batches.get_single_element()
    answers = keras.ops.softmax(model(images)).numpy()
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(guesses, answers.argmax(axis=1))
    np.testing.assert_allclose(probabilities, answers.max(axis=1), rtol=1e-5)
    correct = np.float32((labels == guesses).sum())
    assert np.float32(metrics["top1"]) == correct / np.float32(355)


def test_recording_does_not_change_the_metrics(digits, model):
    strategy = tf.distribute.get_strategy()
    plain = trainer.Evaluator(strategy, model, digits, "test", 64).run()
    assert record(model, digits, 64)[0] == plain


@pytest.mark.slow
def test_two_devices_record_the_same_answers(
    digits, model, data_dir, tmp_path, command
):
    model.save(tmp_path / "model.keras")
    _, answers = record(model, digits, 14)
    command("-c", TWO_DEVICES, data_dir, tmp_path)
    two = np.load(tmp_path / "two.npz")
    for one, other in zip(answers, two.values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)
