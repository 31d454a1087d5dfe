"""What a classifier answers to images, and how good the answers are."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import scipy.special

from model_zoo.preprocessing import imagenet_classes
from train.cli import RunError
from train.engine.mistakes import Answers
from train.input import evaluation_sets
from train.input.evaluation_sets import EvaluationSet

KINDS = ("all", "named", "present")  # of classes to choose from
BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The answers to the images of a data set.

    Attributes:
        answers: Labels, first guesses and their probabilities. For images with several
            labels, the label is the guess if that is one of them, else the first.
        losses: Negative logarithm of the probability of the labels together, (N,).
        within_five: Whether a label is among the five most probable classes, (N,).
        classes: Number of classes that the network chose among.
    """

    answers: Answers
    losses: np.ndarray
    within_five: np.ndarray
    classes: int

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """The means: loss, top1, top5 if there are more than 5 classes, and ece."""
        correct = self.answers.labels == self.answers.guesses
        means = {"loss": self.losses, "top1": correct, "top5": self.within_five}
        if self.classes <= 5:
            del means["top5"]
        error = calibration_error(correct, self.answers.probabilities)
        return {**{k: float(np.mean(v)) for k, v in means.items()}, "ece": error}


def choices(
    images: EvaluationSet,
    class_names: tuple[str, ...],
    mapping: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the network's label for each of a data set, and what to choose from.

    A network with the English names of ImageNet's classes fits a data set with their
    WordNet ids.

    Args:
        images: The data set.
        class_names: Class names of the network.
        mapping: As in `train.input.evaluation_sets.match`.
        kind: One of `KINDS`. `None` selects named, or present for ImageNet-A and R.

    Returns:
        Labels (labels of the data set,), -1 for none, and whether a class is one of
        those to choose from, (classes of the network,).

    Raises:
        UsageError, RunError: If the classes do not match.
    """
    ids, english = zip(*imagenet_classes(), strict=True)
    named = images.class_names if mapping is None else mapping.values()
    if class_names == english and {*named} <= {*ids}:
        class_names = ids
    to_network = evaluation_sets.match(images, class_names, mapping)
    base = images.name.split("/")[0].split(":")[0]
    kind = kind or ("present" if base in evaluation_sets.SUBSETS else "named")
    chosen = to_network[images.present()] if kind == "present" else to_network
    among = np.full(len(class_names), kind == "all")
    among[chosen[chosen >= 0]] = True
    return to_network, among


def evaluate(
    predict: Callable,
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    class_names: tuple[str, ...],
    among: np.ndarray,
) -> Evaluation:
    """Evaluates a classifier.

    Args:
        predict: Function of uint8 images (N, H, W, C) that returns logits (N, classes).
        batches: Images, labels (N, L), padded with -1, and names, as of
            `train.input.evaluation_sets.batches`.
        class_names: Class names of the network.
        among: Whether a class is one of those to choose from, (classes,).

    Raises:
        RunError: If there is no image, or an answer is not finite.
    """
    parts = []
    for images, labels, names in batches:
        logits = np.asarray(predict(images), np.float64)
        if not np.isfinite(logits[:, among]).all():
            raise RunError(
                "The network's answers must be finite. Received: "
                f"{logits[~np.isfinite(logits)][0]} for one of the images "
                f"{names[0]} to {names[-1]}."
            )
        logits = np.where(among, logits, -np.inf)
        parts.append((*_answers(logits, labels), names))
    if not parts:
        raise RunError(
            "Expected at least one image with a label of the network. Received: none."
        )
    labels, guesses, scores, losses, within, names = map(
        np.concatenate, zip(*parts, strict=True)
    )
    names = [os.fsdecode(n) if isinstance(n, bytes) else n for n in names.tolist()]
    answers = Answers(class_names, names, labels, guesses, scores)
    return Evaluation(answers, losses, within, int(among.sum()))


def _answers(logits, labels):
    """Returns label, guess, its probability, loss and top-5 hit of each image."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]  # as `tf.math.top_k`
    log_probabilities = scipy.special.log_softmax(logits, axis=1)
    rows = np.arange(len(logits))
    guesses = order[:, 0]
    is_right = np.zeros((len(logits), logits.shape[1] + 1), bool)
    is_right[rows[:, np.newaxis], labels] = True  # the padding, -1, in one column more
    is_right = is_right[:, :-1]
    first = np.take_along_axis(labels, (labels >= 0).argmax(1)[:, np.newaxis], 1)[:, 0]
    return (
        np.where(is_right[rows, guesses], guesses, first),
        guesses,
        np.exp(log_probabilities[rows, guesses]),
        -scipy.special.logsumexp(np.where(is_right, log_probabilities, -np.inf), 1),
        np.take_along_axis(is_right, order, axis=1).any(axis=1),
    )


def calibration_error(correct: np.ndarray, confidences: np.ndarray) -> float:
    """Returns the expected calibration error with 15 bins of equal width.

    ECE = sum over bins of |sum of (correct - confidence)| / N, of the images whose
    confidence is in ((b - 1) / 15, b / 15]: Guo, Pleiss, Sun and Weinberger, On
    Calibration of Modern Neural Networks, ICML 2017.
    """
    bins = np.clip(np.ceil(confidences * BINS).astype(int), 1, BINS)
    gaps = np.bincount(bins, weights=correct - confidences)
    return float(np.abs(gaps).sum() / len(correct))
