"""Metrics of answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from model_zoo.preprocessing import imagenet_classes
from train import config
from train.cli import RunError
from train.engine import evaluation, trainer
from train.input import dataset, evaluation_sets, pipeline

NAMES = tuple("abcdefg")
LOGITS = np.array(
    [
        [3, 2, 1, 0, -1, -2, -3],
        [0, 9, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 2],
    ],
    np.float32,
)


def evaluate(labels, logits=LOGITS, among=None, names=NAMES):
    labels, count = np.array(labels), len(logits)
    among = np.ones(len(names), bool) if among is None else np.isin(names, [*among])
    batches = [(np.arange(count), labels, np.arange(count))]
    return evaluation.evaluate(lambda x: logits[x], batches, names, among)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_metrics_are_those_of_the_definitions():
    done = evaluate([[0], [6], [6]])
    probabilities = softmax(LOGITS.astype(np.float64))
    assert done.answers.guesses.tolist() == [0, 1, 6]
    np.testing.assert_allclose(done.answers.probabilities, probabilities.max(axis=1))
    expected = -np.log(probabilities[[0, 1, 2], [0, 6, 6]])
    np.testing.assert_allclose(done.losses, expected)
    metrics = done.metrics
    assert metrics["loss"] == pytest.approx(expected.mean())
    assert metrics["top1"] == metrics["top5"] == pytest.approx(2 / 3)  # g is sixth


def test_any_of_several_labels_is_right():
    done = evaluate([[3, 0], [2, 3], [5, -1]])
    assert done.answers.labels.tolist() == [0, 2, 5]  # the guess, else the first
    assert done.metrics["top1"] == pytest.approx(1 / 3)
    probabilities = softmax(LOGITS.astype(np.float64))
    assert done.losses[0] == pytest.approx(-np.log(probabilities[0, [0, 3]].sum()))
    assert done.losses[2] == pytest.approx(-np.log(probabilities[2, 5]))


def test_network_chooses_among_some_classes_only():
    done = evaluate([[1], [2], [2]], among="bcd")
    assert done.answers.guesses.tolist() == [1, 1, 1]
    expected = softmax(LOGITS[:, 1:4].astype(np.float64))
    np.testing.assert_allclose(done.answers.probabilities, expected.max(axis=1))
    assert done.classes == 3 and "top5" not in done.metrics


def test_calibration_error_is_the_mean_gap_of_the_bins():
    confidences = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    # two bins: |3/4 - 0.95| of four images, |1/2 - 0.55| of two
    expected = (4 * 0.2 + 2 * 0.05) / 6
    received = evaluation.calibration_error(correct, confidences)
    assert received == pytest.approx(expected)
    edges = np.array([1 / 15, 2 / 15, 1.0])  # each in the bin below it
    assert evaluation.calibration_error(np.ones(3, bool), edges) == pytest.approx(
        (14 / 15 + 13 / 15) / 3
    )


def test_answers_that_are_not_finite_are_reported():
    logits = np.where(LOGITS == 9, np.nan, LOGITS)
    with pytest.raises(RunError, match="must be finite. Received: nan for one of .* 0"):
        evaluate([[0], [0], [0]], logits)
    assert evaluate([[0], [0], [0]], logits, among="acdefg").classes == 6


def test_no_image_with_a_label_is_an_error():
    with pytest.raises(RunError, match="at least one image with a label"):
        evaluation.evaluate(None, [], NAMES, np.ones(7, bool))


@pytest.mark.parametrize("batch_size", [7, 355])
def test_metrics_of_a_split_equal_those_of_training(data_dir, batch_size):
    settings = config.Data("digits", mean=(0.5,), std=(0.25,))
    data = dataset.load(settings, str(data_dir))
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    strategy = tf.distribute.get_strategy()
    expected = trainer.Evaluator(strategy, model, data, "test", batch_size).run()
    images = evaluation_sets.of_split("digits", "test", NAMES, data.splits["test"])
    batches = evaluation_sets.batches(
        images,
        lambda encoded: pipeline.evaluation_image(data, encoded),
        np.arange(10),
        batch_size,
    )
    done = evaluation.evaluate(
        lambda images: model(pipeline.standardize(images, settings)),
        batches,
        data.class_names,
        np.ones(10, bool),
    )
    assert {k: done.metrics[k] for k in expected} == pytest.approx(expected, rel=1e-5)
    assert len(done.answers.images) == 355


def test_english_names_of_imagenet_fit_its_wordnet_ids():
    ids, english = zip(*imagenet_classes(), strict=True)
    examples = tf.data.Dataset.from_tensors((0, b"", [5], 0))
    images = evaluation_sets.EvaluationSet("imagenet_sketch", "test", ids, examples, 1)
    for names in (ids, english):
        to_network, among = evaluation.choices(images, names)
        assert to_network.tolist() == [*range(1000)] and among.all()
    mapping = {ids[5]: ids[7]}
    to_network, among = evaluation.choices(images, english, mapping)
    assert to_network[5] == 7 and np.flatnonzero(among).tolist() == [7]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a", None, [0, 1, 2]),
        ("a", "all", [*range(7)]),
        ("a", "present", [1]),
        ("imagenet_r", None, [1]),
        ("imagenet_a/x:1.0.0", None, [1]),
        ("imagenet_a", "named", [0, 1, 2]),
    ],
)
def test_classes_to_choose_from(name, kind, expected):
    labels = tf.data.Dataset.from_tensors((0, b"", tf.constant([1, -1], tf.int64), 0))
    images = evaluation_sets.EvaluationSet(name, "test", NAMES[:3], labels, 1)
    _, among = evaluation.choices(images, NAMES, None, kind)
    assert np.flatnonzero(among).tolist() == expected
