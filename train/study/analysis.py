"""What the networks of runs do on images: confusions, robustness, attention."""

import dataclasses
from collections.abc import Iterable

import keras
import numpy as np
import scipy.stats

from an_keras.inference import attentive_layers, collect_attention
from train.engine import evaluation
from train.export import image_classifier
from train.input import dataset, evaluation_sets, pipeline
from train.study.groups import FinishedRun

BATCH_SIZE = 64
ATTENTION_IMAGES = 512


@dataclasses.dataclass(frozen=True)
class Gate:
    """The attention of a layer to some images, normalized to a sum of 1 per image.

    Attributes:
        layer: Path of the layer.
        by_class: Mean attention, (classes, K); NaN for classes without an image.
        entropy: Mean entropy of the attention to an image, in nats.
        effective: Mean effective number of components for an image, exp(entropy).
        effective_of_mean: The same of the mean attention to all images: larger than
            `effective` if images differ in the components that they use.
    """

    layer: str
    by_class: np.ndarray
    entropy: float
    effective: float
    effective_of_mean: float


@dataclasses.dataclass(frozen=True)
class Analysis:
    """The answers of a run's best weights.

    Attributes:
        confusion: Numbers of test images by true and predicted class.
        calibration_error: Expected calibration error on the test images.
        corrupted: Top-1 accuracy by corruption and severity.
        gates: The attention of each layer to validation images. Empty without AN.
    """

    confusion: np.ndarray
    calibration_error: float
    corrupted: dict[tuple[str, int], float]
    gates: list[Gate]


def analyse(
    run: FinishedRun,
    data: dataset.ImageData,
    corrupted: Iterable[tuple[str, int]] = (),
    most: int | None = None,
) -> Analysis:
    """Evaluates the best weights of a run.

    Args:
        run: The run.
        data: Its data set.
        corrupted: Corruptions and severities to evaluate the test images with.
        most: Most images for each corruption. `None`: all.
    """
    classifier = image_classifier.of_run(run.directory)
    data = dataclasses.replace(
        data, settings=run.spec.recipe.data, shape=run.spec.shape
    )
    names, is_choice = data.class_names, np.ones(len(data.class_names), bool)

    def images(split):
        return evaluation_sets.of_split(
            data.settings.name, split, names, data.splits[split]
        )

    def batches(images, corruption=None):
        return evaluation_sets.batches(
            images,
            lambda encoded: pipeline.evaluation_image(data, encoded),
            np.arange(len(names)),
            BATCH_SIZE,
            corruption,
        )

    predict, test, gates = classifier.logits, images("test"), []
    clean = evaluation.evaluate(predict, batches(test), names, is_choice)
    accuracies = {}
    for name, severity in corrupted:
        changed = batches(test.thinned(most), (name, severity, 0))
        done = evaluation.evaluate(predict, changed, names, is_choice)
        accuracies[name, severity] = done.metrics["top1"]
    if attentive_layers(classifier.model):
        seen = batches(images("validation").thinned(ATTENTION_IMAGES))
        gates = _gates(classifier, seen, len(names))
    keras.backend.clear_session()
    return Analysis(clean.answers.confusion, clean.metrics["ece"], accuracies, gates)


def _gates(classifier, batches, classes):
    collected, labels = {}, []
    for images, of_images, _ in batches:
        labels.append(of_images[:, 0])
        seen = classifier.standardize(images)
        for path, attention in collect_attention(classifier.model, seen).items():
            collected.setdefault(path, []).append(np.asarray(attention))
    labels = np.concatenate(labels)
    return [
        gate(path, np.concatenate(parts), labels, classes)
        for path, parts in collected.items()
    ]


def gate(layer: str, attention: np.ndarray, labels: np.ndarray, classes: int) -> Gate:
    """Returns the statistics of attention (N, K) to images of some classes."""
    attention = attention.astype(np.float64)
    totals = attention.sum(axis=1, keepdims=True)
    uniform = np.full_like(attention, 1 / attention.shape[1])
    shares = np.divide(attention, totals, out=uniform, where=totals > 0)
    by_class = np.array(
        [
            shares[labels == label].mean(axis=0)
            if (labels == label).any()
            else np.full(shares.shape[1], np.nan)
            for label in range(classes)
        ]
    )
    entropies = scipy.stats.entropy(shares, axis=1)
    return Gate(
        layer,
        by_class,
        float(entropies.mean()),
        float(np.exp(entropies).mean()),
        float(np.exp(scipy.stats.entropy(shares.mean(axis=0)))),
    )
