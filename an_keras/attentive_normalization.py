"""Attentive normalization: feature normalization and feature attention in one layer."""

import math

import keras
from keras import ops

from an_keras import arguments, functional
from an_keras.attention_gate import AttentionGate

NORMALIZATIONS = ("batch", "group", "instance", "layer", None)
DESCRIPTORS = ("mean_over_std", "mean", "mean_plus_max")
GATE_NORMALIZATIONS = ("auto", "batch", "group", None)
# Functions (layer, attention) that are called on every call of a layer, in any thread.
OBSERVERS = []


@keras.saving.register_keras_serializable(package="an_keras")
class AttentiveNormalization(keras.layers.Layer):
    """Attentive normalization layer.

    The layer normalizes its inputs without an affine transform, then applies to each
    instance (sample) its own mixture of K learned affine transforms:

    ```
    s[n, c]      = mean(x) / sqrt(var(x) + 1e-3)        over positions; var is unbiased
    a[n, :]      = hard_sigmoid(BN(s[n, :] @ kernel))   K weights, need not sum to 1
    x_hat        = (x - mu) / sqrt(sigma^2 + epsilon)   the backbone normalization
    y[n, ..., c] = sum_k a[n, k] * (gamma[k, c] * x_hat[n, ..., c] + beta[k, c])
    ```

    The input `x` and the output `y` have shape `(N, positions..., C)` and a floating
    point type, the descriptor `s` has shape `(N, C)`, the weights `a` `(N, K)`, and the
    tables `gamma` and `beta` `(K, C)`. The variance in `s` is unbiased (its divisor is
    `positions - 1`; a single position has variance 0). The variance of the backbone is
    biased.

    In training, the backbone and the gate's batch norm use the statistics of the batch
    and update the moving statistics. In inference, and with `trainable=False` in any
    mode, they use the moving statistics. Moving variances are biased, as in
    `keras.layers.BatchNormalization` (PyTorch stores n/(n-1) times as much, with
    n = N * positions, and n = N in the gate). Statistics, gate and mixture are computed
    in float32 or wider. Under `tf.distribute`, every update of the moving statistics is
    averaged over the replicas, so that all replicas agree.

    If the mean of a channel is r times sqrt(sigma^2 + epsilon), rounding in float32
    causes errors of about 1e-7 * r of the largest output, compiled or not: 1e-3 at
    r = 10,000. The norm of the gate amplifies the rounding errors of logits that hardly
    differ within a batch.

    With the published initialization, the weights are about 1/2 and the gain of the
    mixture is about K/2, which the next convolution and its norm absorb. To start at
    gain 1, pass `gamma_initializer=keras.initializers.RandomNormal(2 / K, 0.2 / K)` and
    `beta_initializer=keras.initializers.RandomNormal(0.0, 0.2 / K)`.

    The published attention modes correspond to these arguments:

    | Mode | gate_hidden_units | gate_normalization | gate_activation |
    |---|---|---|---|
    | 0 | `None` | `None` | `"sigmoid"` |
    | 1 | `2 * K` | `None` | `"sigmoid"` |
    | 2, all published networks: the defaults | `None` | `"batch"` | `"hard_sigmoid"` |
    | 3 | `2 * K` | `"batch"` | `"hard_sigmoid"` |
    | 4 | `None` | `None` | `"hard_sigmoid"` |
    | 5 | `None` | `"batch"` | `"sigmoid"` |
    | 6 | `None` | `"batch"` | `"softmax"` |

    The options of the refactored release (iVMCL) correspond to these arguments:

    | Option | Arguments |
    |---|---|
    | `AttnBN2d`, `attn_mode=0`, `use_rsd=True` | the defaults |
    | `use_rsd=False` | `descriptor="mean"` |
    | `use_rsd=False, use_maxpool=True` | `descriptor="mean_plus_max"` |
    | `eps_var` | `descriptor_epsilon` |
    | `attn_mode=1`, one group | `gate_normalization="group"` |
    | `attn_mode=1`, no groups | `gate_normalization="batch"` |
    | `AttnGN` | `normalization="group"`, `gate_normalization="group"` or `"batch"` |
    | `AttnGN` of detection heads | `normalization="group"`, `gate_normalization=None` |

    Args:
        num_components: Integer, at least 1. The number K of affine transforms in the
            mixture. The published networks use 10 in the first two stages and 20 in the
            others. Defaults to `10`.
        normalization: The backbone normalization. `None` disables it (`x_hat = x`).
            Defaults to `"batch"`.

            - `"batch"`: Batch normalization.
            - `"group"`: Normalizes each sample over its positions and the channels of a
                group.
            - `"instance"`: Normalizes each channel of a sample over its positions.
            - `"layer"`: Normalizes each position over its channels, as in
                `keras.layers.LayerNormalization`. The gate still works per sample. This
                variant is unpublished.
        groups: Integer. The number of groups for `normalization="group"`. Must divide
            C. Defaults to `32`.
        axis: Integer. The channel axis, either the last axis or 1. Defaults to `-1`.
        momentum: Momentum of the moving statistics, in [0, 1]:
            `moving = momentum * moving + (1 - momentum) * batch`. Defaults to `0.9`.
        epsilon: Small float added to the variances of the backbone and of the gate's
            norm. Defaults to `1e-5`.
        descriptor: The descriptor of an instance that the gate receives:
            `"mean_over_std"`, `"mean"` or `"mean_plus_max"`. Defaults to
            `"mean_over_std"`.
        descriptor_epsilon: Small float added to the variance in `"mean_over_std"`.
            Defaults to `1e-3`.
        gate_hidden_units: Width of a hidden layer with ReLU in the gate, or `None` for
            no hidden layer. Defaults to `None`.
        gate_normalization: Normalization in the gate: `"batch"` (over the batch axis),
            `"group"` (one group over K), `None`, or `"auto"`, which selects `"batch"`
            for a batch backbone and `None` otherwise. A gate projection has a bias if
            and only if no norm follows it. Defaults to `"auto"`.
        gate_activation: A Keras activation, or a pure function that maps logits (N, K)
            to weights (N, K), each sample independently. `"softmax"` is over K. Every
            activation is tested on a few logits: `keras.activations.sparsemax` of
            Keras 3.15, whose weights do not add up to 1, is rejected. Defaults to
            `"hard_sigmoid"`.
        synchronized: Boolean. Whether to compute the batch statistics of the backbone
            and the gate over all replicas (on TensorFlow; on JAX they are always
            global). Defaults to `False`.
        gamma_initializer: Initializer for the (K, C) scales. `None` selects
            `RandomNormal(1.0, 0.1)`.
        beta_initializer: Initializer for the (K, C) offsets. `None` selects
            `RandomNormal(0.0, 0.1)`.
        gate_initializer: Initializer for the kernels of the gate. `None` selects
            `VarianceScaling(2.0, "fan_out", "untruncated_normal")`.
        moving_mean_initializer: Initializer for the moving mean of the backbone.
            Defaults to `"zeros"`.
        moving_variance_initializer: Initializer for the moving variance of the
            backbone. Defaults to `"ones"`.
        gamma_regularizer: Optional regularizer for the scales.
        beta_regularizer: Optional regularizer for the offsets.
        gate_regularizer: Optional regularizer for the kernels of the gate.
        gamma_constraint: Optional constraint for the scales.
        beta_constraint: Optional constraint for the offsets.
        gate_constraint: Optional constraint for the kernels of the gate.

    Call arguments:
        - `inputs`: Floating point tensor of rank 2 to 5.
        - `training`: Boolean. Whether to use the statistics of the batch.
        - `mask`: Boolean tensor with the shape of `inputs` without the channel axis, or
            `None`. An axis of size 1 is broadcast. Masked positions are excluded from
            all statistics, and so are samples in which every position is masked. The
            masks that Keras layers propagate have this shape if the channels are last.

    Input shape:
        `(N, positions..., C)`, or `(N, C, positions...)` with `axis=1`. Rank 2 means
        one position per sample.

    Output shape:
        Same as the input shape.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or if the shape of the inputs or of
            the mask does not match the arguments.

    Reference:

    - [Li, Sun and Wu, Attentive Normalization, ECCV 2020](
        https://arxiv.org/abs/1908.01259)

    Examples:
        >>> layer = AttentiveNormalization(num_components=10)
        >>> tuple(layer(keras.ops.ones((2, 8, 8, 16))).shape)
        (2, 8, 8, 16)
    """

    def __init__(
        self,
        num_components: int = 10,
        normalization: str | None = "batch",
        groups: int = 32,
        axis: int = -1,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        descriptor: str = "mean_over_std",
        descriptor_epsilon: float = 1e-3,
        gate_hidden_units: int | None = None,
        gate_normalization: str | None = "auto",
        gate_activation="hard_sigmoid",
        synchronized: bool = False,
        gamma_initializer=None,
        beta_initializer=None,
        gate_initializer=None,
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        gamma_regularizer=None,
        beta_regularizer=None,
        gate_regularizer=None,
        gamma_constraint=None,
        beta_constraint=None,
        gate_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        arguments.require_floating("dtype", self.dtype_policy)
        arguments.require_positive_integer("num_components", num_components)
        arguments.require_positive_integer("groups", groups)
        if gate_hidden_units is not None:
            arguments.require_positive_integer("gate_hidden_units", gate_hidden_units)
        for name, value, members in (
            ("normalization", normalization, NORMALIZATIONS),
            ("descriptor", descriptor, DESCRIPTORS),
            ("gate_normalization", gate_normalization, GATE_NORMALIZATIONS),
        ):
            arguments.require_member(name, value, members)
        arguments.require_integer("axis", axis)
        arguments.require_fraction("momentum", momentum)
        arguments.require_positive_number("epsilon", epsilon)
        arguments.require_positive_number("descriptor_epsilon", descriptor_epsilon)
        arguments.require_boolean("synchronized", synchronized)
        if synchronized and keras.backend.backend() not in ("tensorflow", "jax"):
            raise ValueError(
                "`synchronized=True` is supported on TensorFlow and JAX only. "
                f"Received: backend {keras.backend.backend()!r}."
            )
        self.num_components = int(num_components)
        self.normalization = normalization
        self.groups = int(groups)
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.descriptor = descriptor
        self.descriptor_epsilon = float(descriptor_epsilon)
        self.gate_hidden_units = gate_hidden_units and int(gate_hidden_units)
        self.gate_normalization = gate_normalization
        self.gate_activation = keras.activations.get(gate_activation)
        arguments.require_activation(
            "gate_activation", self.gate_activation, self.num_components
        )
        self.synchronized = synchronized
        # New objects for each layer: an initializer draws the same numbers every time.
        self.gamma_initializer = keras.initializers.get(
            keras.initializers.RandomNormal(1.0, 0.1)
            if gamma_initializer is None
            else gamma_initializer
        )
        self.beta_initializer = keras.initializers.get(
            keras.initializers.RandomNormal(0.0, 0.1)
            if beta_initializer is None
            else beta_initializer
        )
        self.gate_initializer = keras.initializers.get(
            keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
            if gate_initializer is None
            else gate_initializer
        )
        self.moving_mean_initializer = keras.initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = keras.initializers.get(
            moving_variance_initializer
        )
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.gate_regularizer = keras.regularizers.get(gate_regularizer)
        self.gamma_constraint = keras.constraints.get(gamma_constraint)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.gate_constraint = keras.constraints.get(gate_constraint)
        self.supports_masking = True

    def build(self, input_shape):
        rank, channels = len(input_shape), self._channels(input_shape)
        self.input_spec = keras.InputSpec(ndim=rank, axes={self.axis: channels})
        table = (self.num_components, channels)
        self.gamma = self.add_weight(
            name="gamma",
            shape=table,
            initializer=self.gamma_initializer,
            regularizer=self.gamma_regularizer,
            constraint=self.gamma_constraint,
            autocast=False,
        )
        self.beta = self.add_weight(
            name="beta",
            shape=table,
            initializer=self.beta_initializer,
            regularizer=self.beta_regularizer,
            constraint=self.beta_constraint,
            autocast=False,
        )
        if self.normalization == "batch":
            statistic = {
                "shape": (channels,),
                "trainable": False,
                "autocast": False,
                "aggregation": "mean",
            }
            self.moving_mean = self.add_weight(
                name="moving_mean",
                initializer=self.moving_mean_initializer,
                **statistic,
            )
            self.moving_variance = self.add_weight(
                name="moving_variance",
                initializer=self.moving_variance_initializer,
                **statistic,
            )
        gate_normalization = self.gate_normalization
        if gate_normalization == "auto":
            gate_normalization = "batch" if self.normalization == "batch" else None
        self.gate = AttentionGate(
            self.num_components,
            hidden_units=self.gate_hidden_units,
            normalization=gate_normalization,
            activation=self.gate_activation,
            momentum=self.momentum,
            epsilon=self.epsilon,
            synchronized=self.synchronized,
            kernel_initializer=self.gate_initializer,
            kernel_regularizer=self.gate_regularizer,
            kernel_constraint=self.gate_constraint,
            dtype=self.dtype_policy,
            autocast=False,
            trainable=self.trainable,
            name="gate",
        )
        self.gate.build((None, channels))

    def _channels(self, input_shape):
        rank = len(input_shape)
        if not 2 <= rank <= 5:
            raise ValueError(
                "`inputs` must be of rank 2 to 5, (N, positions..., C). "
                f"Received: shape {tuple(input_shape)}."
            )
        if self.axis not in (-1, rank - 1, 1, 1 - rank):
            raise ValueError(
                "`axis` must be the last axis or 1. "
                f"Received: axis={self.axis}, shape {tuple(input_shape)}."
            )
        channels = input_shape[self.axis]
        if not channels:
            raise ValueError(
                "The channel axis must have a static size of at least 1. "
                f"Received: axis={self.axis}, shape {tuple(input_shape)}."
            )
        if self.normalization == "group" and channels % self.groups:
            raise ValueError(
                "`groups` must divide the number of channels. "
                f"Received: groups={self.groups}, channels={channels}."
            )
        if self.normalization == "instance" and rank == 2:
            raise ValueError(
                '`normalization="instance"` needs positions to normalize over. '
                f"Received: shape {tuple(input_shape)}."
            )
        return channels

    def call(self, inputs, training=None, mask=None):
        if mask is None and self._has_kernels(inputs, training):
            return self._call_kernels(inputs, training)
        x, mask = self._prepare(inputs, mask)
        moments = self._instance_moments(x, mask)
        descriptor = self._describe(x, mask, moments)
        gamma, centre, beta = self._affine(descriptor, moments, training)
        if self.normalization == "layer":
            mean = ops.mean(x, axis=self.axis, keepdims=True)
            variance = ops.mean(ops.square(x - mean), axis=self.axis, keepdims=True)
            x = (x - mean) * ops.rsqrt(variance + self.epsilon)
        elif centre is not None:
            if training and self.trainable:
                x = x - self._broadcast(x)(centre)
            else:  # one multiply-add
                beta = beta - gamma * centre
        gamma, beta = self._broadcast(x)(gamma), self._broadcast(x)(beta)
        return ops.cast(gamma * x + beta, self.compute_dtype)

    def _has_kernels(self, inputs, training):
        if (
            keras.backend.backend() != "tensorflow"
            or self.descriptor == "mean_plus_max"
            or self.axis not in (-1, len(inputs.shape) - 1)
        ):
            return False
        from an_keras import kernels_tf

        return kernels_tf.apply_here(inputs, training and self.trainable)

    def _call_kernels(self, inputs, training):
        """Same as `call`, with `kernels_tf` for large passes; the rest is shared."""
        from an_keras import kernels_tf

        trained = self.trainable_variables
        fixed = [v for v in self.weights if all(v is not other for other in trained)]
        values = kernels_tf.read(fixed)
        changed = []

        def affine(mean, variance, *parameters):
            moments = (
                mean,
                variance,
                ops.cast(math.prod(inputs.shape[1:-1]), mean.dtype),
            )
            mapping = [*zip(trained, parameters, strict=True)]
            mapping += zip(fixed, values, strict=True)
            with keras.StatelessScope(mapping) as scope:
                descriptor = self._describe(None, None, moments)
                gamma, centre, beta = self._affine(descriptor, moments, training)
                if self.normalization != "layer":  # the pass subtracts `mean`
                    shift = mean if centre is None else mean - centre
                    beta = beta + gamma * shift
            new = [scope.get_current_value(variable) for variable in fixed]
            # The scope withholds assignments from the variables; collect them here.
            changed[:] = [i for i, value in enumerate(values) if new[i] is not value]
            return gamma, beta, [new[i] for i in changed]

        parameters = kernels_tf.read(trained)
        layer_epsilon = self.epsilon if self.normalization == "layer" else None
        outputs, updates = kernels_tf.normalize(
            inputs, affine, parameters, layer_epsilon
        )
        for i, value in zip(changed, updates, strict=True):
            fixed[i].assign(value)
        return ops.cast(outputs, self.compute_dtype)

    def _affine(self, descriptor, moments, training):
        """Returns gamma, centre, beta of y = gamma * (x - centre) + beta.

        Each is (N, C) or (C,). They combine the mixture with the standardization,
        except for `"layer"` and `None`, for which they are the mixture only and centre
        is `None`.
        """
        attention = self.gate(
            descriptor, training=training, sample_weight=self._sample_weight(moments)
        )
        for observe in (*OBSERVERS,):
            observe(self, attention)
        dtype = attention.dtype
        gamma, beta = functional.mix(
            attention, ops.cast(self.gamma, dtype), ops.cast(self.beta, dtype)
        )
        if self.normalization in ("layer", None):
            return gamma, None, beta
        centre, variance = self._statistics(moments, training)
        return gamma * ops.rsqrt(variance + self.epsilon), centre, beta

    def attention(self, inputs, training=False, mask=None):
        """Returns the weights of the K components for each sample, (N, K).

        It does not update the moving statistics. With `training=True`, the gate's batch
        norm uses the statistics of this batch.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if not self.built:
            self.build(inputs.shape)
        elif self._channels(inputs.shape) != self.gamma.shape[1]:
            raise ValueError(
                f"`inputs` must have {self.gamma.shape[1]} channels. "
                f"Received: shape {tuple(inputs.shape)}."
            )
        x, mask = self._prepare(inputs, mask)
        moments = self._instance_moments(x, mask)
        descriptor = self._describe(x, mask, moments)
        return self.gate.attend(
            descriptor, training, self._sample_weight(moments), update=False
        )

    def _prepare(self, inputs, mask):
        """Returns inputs in float32 or wider, and the mask as broadcastable numbers."""
        is_double = keras.backend.standardize_dtype(inputs.dtype) == "float64"
        dtype = "float64" if is_double else "float32"
        if mask is not None:
            mask = ops.convert_to_tensor(mask)
            expected = list(inputs.shape)
            del expected[self.axis]
            if len(mask.shape) != len(expected) or any(
                None not in pair and pair[0] not in (1, pair[1])
                for pair in zip(mask.shape, expected, strict=True)
            ):
                raise ValueError(
                    "`mask` must have the shape of `inputs` without the channel axis. "
                    f"Received: mask of shape {tuple(mask.shape)}, inputs of shape "
                    f"{tuple(inputs.shape)}, axis={self.axis}."
                )
            mask = ops.expand_dims(ops.cast(mask, "bool"), self.axis)
            mask = ops.cast(mask, dtype)
            every = ops.sum(inputs, axis=self.axis, keepdims=True)
            mask = mask * ops.cast(ops.ones_like(every), dtype)  # expand axes of size 1
        return ops.cast(inputs, dtype), mask

    def _sample_weight(self, moments):
        """Returns 1 for samples with positions, else 0, (N, 1); `None` for all 1."""
        count = moments[2]
        return ops.cast(count > 0, count.dtype) if len(count.shape) else None

    def _position_axes(self, x):
        channel_axis = self.axis % len(x.shape)
        return [axis for axis in range(1, len(x.shape)) if axis != channel_axis]

    def _broadcast(self, x):
        """Returns a function that reshapes (N, C) or (C,) to broadcast against `x`."""
        shape = [-1] + [1] * (len(x.shape) - 1)
        shape[self.axis] = self.gamma.shape[1]
        return lambda array: ops.reshape(array, shape)

    def _instance_moments(self, x, mask):
        return functional.instance_moments(
            x, self._position_axes(x), self._broadcast(x), mask
        )

    def _describe(self, x, mask, moments):
        mean, variance, count = moments
        if self.descriptor == "mean_over_std":
            epsilon = self.descriptor_epsilon
            return functional.mean_over_std(mean, variance, count, epsilon)
        if self.descriptor == "mean_plus_max":
            return mean + functional.maximum(x, self._position_axes(x), count, mask)
        return mean

    def _statistics(self, moments, training):
        """Returns mean and variance of the backbone, (C,) or (N, C)."""
        mean, variance, count = moments
        if self.normalization == "group":
            return functional.group_moments(mean, variance, self.groups)
        if self.normalization == "instance":
            return mean, variance
        if training and self.trainable:
            positions = count if len(count.shape) else None
            total = ops.shape(mean)[0] if positions is None else ops.sum(positions)
            mean, variance = functional.batch_moments(
                mean, variance, positions, self.synchronized
            )
            for variable, new in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                functional.update_moving(variable, new, self.momentum, total)
            return mean, variance
        dtype = mean.dtype
        return ops.cast(self.moving_mean, dtype), ops.cast(self.moving_variance, dtype)

    def compute_output_shape(self, input_shape):
        self._channels(input_shape)
        return tuple(input_shape)

    def get_config(self):
        config = {
            "num_components": self.num_components,
            "normalization": self.normalization,
            "groups": self.groups,
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "descriptor": self.descriptor,
            "descriptor_epsilon": self.descriptor_epsilon,
            "gate_hidden_units": self.gate_hidden_units,
            "gate_normalization": self.gate_normalization,
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "synchronized": self.synchronized,
        }
        for name in ("moving_mean_initializer", "moving_variance_initializer"):
            config[name] = keras.initializers.serialize(getattr(self, name))
        for part in ("gamma", "beta", "gate"):
            for kind, serialize in (
                ("initializer", keras.initializers.serialize),
                ("regularizer", keras.regularizers.serialize),
                ("constraint", keras.constraints.serialize),
            ):
                name = f"{part}_{kind}"
                config[name] = serialize(getattr(self, name))
        return {**super().get_config(), **config}
