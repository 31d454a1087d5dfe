"""Keras' BatchNormalization, with moving statistics that all replicas agree on."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="an_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` whose replicas hold the same statistics.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, each of them (C,)

    Arguments, weights, files and results are those of the Keras layer. Under a
    `tf.distribute` strategy Keras lets the moving statistics of the replicas drift
    apart and saves those of the first; here every update is averaged over the replicas,
    so that a model scores the same before and after saving.

    The moving variance is the biased one, as everywhere in Keras (PyTorch stores the
    unbiased one).

    Reference: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167
    """

    def add_weight(self, *args, **kwargs):
        if not kwargs.get("trainable", True):
            kwargs["aggregation"] = "mean"
        return super().add_weight(*args, **kwargs)

    def _moments(self, inputs, mask):
        """A replica without samples has no say in the average."""
        some = ops.shape(inputs)[0] > 0
        old = (self.moving_mean, self.moving_variance)
        return tuple(
            ops.where(some, moment, ops.cast(moving, moment.dtype))
            for moment, moving in zip(super()._moments(inputs, mask), old, strict=True)
        )
