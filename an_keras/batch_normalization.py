"""Keras' BatchNormalization, with moving statistics that all replicas agree on."""

import keras


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
