"""Loss and accuracies of a batch and over a split, and a check that they are finite."""

import keras
import numpy as np
import tensorflow as tf

from train.cli import RunError
from train.input import dataset


def top_k(data: dataset.ImageData) -> int:
    """Returns the k of the second accuracy: 5, or 1 where top-5 is meaningless."""
    return 5 if len(data.class_names) > 5 else 1


class RunningMeans:
    """Accumulates means of loss and accuracies over examples, steps and replicas."""

    NAMES = ("loss", "top1", "top5", "examples")

    def __init__(self):
        self._sums = {
            name: tf.Variable(
                0.0,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
                name=name,
            )
            for name in self.NAMES
        }

    def reset(self) -> None:
        for variable in self._sums.values():
            variable.assign(tf.zeros_like(variable))

    def update(self, losses, logits, labels, sample_weight, k: int) -> None:
        """Adds the examples of a batch: losses (N,) and logits (N, classes)."""
        # as in an export: of classes with equal logits, only the first k are guesses
        _, guesses = tf.math.top_k(logits, k)
        hits = tf.equal(tf.cast(guesses, labels.dtype), labels[:, tf.newaxis])
        hits = tf.cast(hits, tf.float32)
        correct = {"top1": hits[:, 0], "top5": tf.reduce_sum(hits, axis=1)}
        values = {"loss": losses, **correct, "examples": tf.ones_like(losses)}
        for name, value in values.items():
            value = tf.cast(value, tf.float32)
            self._sums[name].assign_add(tf.reduce_sum(value * sample_weight))

    def results(self, k: int) -> dict:
        """Returns the means over the examples, without top5 where it is meaningless."""
        names = ("loss", "top1", "top5") if k > 1 else ("loss", "top1")
        return {name: self._sums[name] / self._sums["examples"] for name in names}


def cross_entropy(labels, logits, smoothing=0.0):
    """Returns the softmax cross entropy of each example, (N,).

    With smoothing e it is (1 - e) times the cross entropy with the label, plus e times
    the mean of the cross entropies with all classes, the true one included.
    """
    if logits.dtype != tf.float64:
        logits = tf.cast(logits, tf.float32)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    if not smoothing:
        return losses
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - smoothing) * losses + smoothing * uniform


def require_finite(metrics: dict, first_step: int, last_step: int) -> None:
    """Stops a run whose loss or weights are no longer finite.

    Raises:
        RunError: If they are not. The message names the steps in which it happened.
    """
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise RunError(
                f"Training diverged between steps {first_step} and {last_step}. "
                f"Expected a finite {name.replace('_', ' ')}. Received: {value}. A "
                "smaller --set=optimizer.learning_rate may help."
            )
