"""The attention gate: maps an instance's descriptor to weights of the K components."""

import keras
from keras import ops

from an_keras import functional


class AttentionGate(keras.layers.Layer):
    """Computes activation(norm(descriptor @ kernel [+ bias])), (N, C) -> (N, K).

    With `hidden_units`, a first projection of the same form, with ReLU, precedes it.
    A projection has a bias if and only if no norm follows it. The norm is over the
    batch axis only (`"batch"`, with moving statistics), over the K logits of each
    sample (`"group"`) or absent (`None`).

    Variables: `kernel` (C, K) and, where they exist, `bias`, `gamma`, `beta`,
    `moving_mean` and `moving_variance` (K,). Those of the first projection have the
    prefix `hidden_`.

    The gate is a part of `AttentiveNormalization`, which validates its arguments.
    """

    def __init__(
        self,
        num_components,
        hidden_units=None,
        normalization="batch",
        activation="hard_sigmoid",
        momentum=0.9,
        epsilon=1e-5,
        synchronized=False,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        kernel_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_components = num_components
        self.hidden_units = hidden_units
        self.normalization = normalization
        self.activation = keras.activations.get(activation)
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)

    def build(self, descriptor_shape):
        units = descriptor_shape[-1]
        if self.hidden_units:
            self._build_projection("hidden_", units, self.hidden_units)
            units = self.hidden_units
        self._build_projection("", units, self.num_components)

    def _build_projection(self, prefix, inputs, units):
        def add(name, shape, initializer, **kwargs):
            name = prefix + name
            kwargs = {"autocast": False, **kwargs}
            variable = self.add_weight(
                name=name, shape=shape, initializer=initializer, **kwargs
            )
            setattr(self, name, variable)

        kernel_initializer = self.kernel_initializer
        # An initializer without a seed draws the same numbers on every call.
        if prefix and isinstance(kernel_initializer, keras.initializers.Initializer):
            kernel_initializer = kernel_initializer.clone()
        add(
            "kernel",
            (inputs, units),
            kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.normalization is None:
            add("bias", (units,), "zeros")
            return
        add("gamma", (units,), "ones")
        add("beta", (units,), "zeros")
        if self.normalization == "batch":
            statistic = {"trainable": False, "aggregation": "mean"}
            add("moving_mean", (units,), "zeros", **statistic)
            add("moving_variance", (units,), "ones", **statistic)

    def call(self, descriptor, training=None, sample_weight=None):
        return self.attend(descriptor, training, sample_weight, update=True)

    def attend(self, descriptor, training, sample_weight, update):
        """Same as `call`, but `update=False` leaves moving statistics unchanged.

        `sample_weight`, (N, 1), is 1 for the samples that count in the batch norm and 0
        for the others. `None` counts all samples.
        """
        if self.hidden_units:
            hidden = self._project(
                "hidden_", descriptor, training, sample_weight, update
            )
            descriptor = ops.relu(hidden)
        logits = self._project("", descriptor, training, sample_weight, update)
        return self.activation(logits)

    def _project(self, prefix, x, training, sample_weight, update):
        def variable(name):
            return ops.cast(getattr(self, prefix + name), x.dtype)

        logits = ops.matmul(x, variable("kernel"))
        if self.normalization is None:
            return logits + variable("bias")
        if self.normalization == "group":
            mean = ops.mean(logits, axis=-1, keepdims=True)
            variance = ops.mean(ops.square(logits - mean), axis=-1, keepdims=True)
        elif training and self.trainable:
            mean, variance = functional.batch_moments(
                logits, ops.zeros_like(logits), sample_weight, self.synchronized
            )
            if update:
                samples = ops.shape(logits)[0]
                if sample_weight is not None:
                    samples = ops.sum(sample_weight)
                for name, batch in (("mean", mean), ("variance", variance)):
                    moving = getattr(self, f"{prefix}moving_{name}")
                    functional.update_moving(moving, batch, self.momentum, samples)
        else:
            mean, variance = variable("moving_mean"), variable("moving_variance")
        normalized = (logits - mean) * ops.rsqrt(variance + self.epsilon)
        return normalized * variable("gamma") + variable("beta")

    def compute_output_shape(self, descriptor_shape):
        return (*descriptor_shape[:-1], self.num_components)
