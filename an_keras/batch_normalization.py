"""Keras' BatchNormalization, with the same moving statistics on all replicas."""

import keras
from keras import ops

from an_keras import functional


@keras.saving.register_keras_serializable(package="an_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with the same statistics on all replicas.

    y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    `gamma`, `mean`, `variance` and `beta` have shape (C,).

    Arguments, weights, files and results are the same as for the Keras layer. Under a
    `tf.distribute` strategy, Keras lets the moving statistics of the replicas drift
    apart and saves those of the first replica. This layer averages every update over
    the replicas, so saving does not change the accuracy of a model.

    On TensorFlow, compiled training (`fit`, or a gradient tape in a `tf.function`) on
    channels-last images uses TensorFlow's fused operation, which is faster on a CPU.
    Eager calls, inference and exports never use it, because they may come from several
    threads at once.

    The moving variance is biased, as everywhere in Keras (PyTorch stores the unbiased
    variance).

    Reference: Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167
    """

    def add_weight(self, *args, **kwargs):
        if not kwargs.get("trainable", True):
            kwargs["aggregation"] = "mean"
        return super().add_weight(*args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        if mask is not None or not training or not self._is_fused(inputs):
            return super().call(inputs, training=training, mask=mask)
        from an_keras import kernels_tf

        zeros = ops.zeros_like(self.moving_mean.value)
        gamma = self.gamma.value if self.scale else zeros + 1.0
        beta = self.beta.value if self.center else zeros
        outputs, *moments = kernels_tf.fused_batch_norm(
            inputs, gamma, beta, self.epsilon
        )
        size = ops.size(inputs)
        for variable, moment in zip(
            (self.moving_mean, self.moving_variance), moments, strict=True
        ):
            functional.update_moving(variable, moment, self.momentum, size)
        return ops.cast(outputs, self.compute_dtype)

    def _is_fused(self, inputs):
        if (
            keras.backend.backend() != "tensorflow"
            or not self.trainable
            or self.synchronized
            or getattr(self, "renorm", False)  # since Keras 3.15
            or self.axis not in (-1, len(inputs.shape) - 1)
            or self.moving_mean.dtype != "float32"
        ):
            return False
        from an_keras import kernels_tf

        return kernels_tf.has_fused_batch_norm(inputs)

    def _moments(self, inputs, mask):
        """Returns the moments of the batch, or the moving ones if the batch is empty.

        A replica without samples or positions thus keeps its moving statistics.
        """
        if mask is None and not self.synchronized:
            # `tf.nn.moments`, which Keras uses, blocks second-order gradients.
            axes = tuple(self._reduction_axes)
            mean = ops.mean(inputs, axes, keepdims=True)
            variance = ops.mean(ops.square(inputs - mean), axes)
            moments = ops.squeeze(mean, axes), variance
        else:
            moments = super()._moments(inputs, mask)
        some = ops.size(inputs) > 0
        old = (self.moving_mean, self.moving_variance)
        return tuple(
            ops.where(some, moment, ops.cast(moving, moment.dtype))
            for moment, moving in zip(moments, old, strict=True)
        )
