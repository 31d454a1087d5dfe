"""The equations of attentive normalization, as pure functions of arrays.

N samples, C channels, K components. `x` has its channels first or last and any number
of position axes. Everything that attention needs from it has shape (N, C).
"""

import keras
from keras import ops


def instance_moments(x, position_axes, broadcast, mask=None):
    """Computes moments of each channel of each sample over its positions.

    Args:
        x: Floating point array, (N, positions..., C) or (N, C, positions...).
        position_axes: Axes of `x` that are positions. May be empty.
        broadcast: Function that reshapes (N, C) to broadcast against `x`.
        mask: `None`, or an array of 0 and 1 with one channel that broadcasts against
            `x`. Positions with 0 are excluded.

    Returns:
        The mean (N, C), the biased variance (N, C), and the number of positions, as
        a scalar or, where it may be 0, (N, 1). A sample without positions has mean and
        variance 0.
    """
    if mask is not None:  # before anything else, as NaN * 0 is NaN
        x = ops.where(mask > 0, x, 0.0)
    if not position_axes:
        count = ops.ones((), x.dtype) if mask is None else mask
        return x, ops.zeros_like(x), count
    if mask is None:
        shape = ops.shape(x)
        count = ops.ones((), x.dtype)
        for axis in position_axes:
            count = count * ops.cast(shape[axis], x.dtype)
        mean = ops.mean(x, axis=position_axes)
        if all(x.shape[axis] == 1 for axis in position_axes):
            # int8 runtimes cannot find a scale for differences that are always 0
            return mean, ops.zeros_like(mean), count
        centred = x - broadcast(mean)
        variance = ops.mean(ops.square(centred), axis=position_axes)
        if any(x.shape[axis] in (None, 0) for axis in position_axes):
            count = count * ops.ones_like(mean[:, :1])
            mean = ops.where(count > 0, mean, 0.0)
            variance = ops.where(count > 0, variance, 0.0)
        return mean, variance, count
    count = ops.sum(mask, axis=position_axes)
    divisor = ops.maximum(count, 1.0)
    mean = ops.sum(x, axis=position_axes) / divisor
    centred = (x - broadcast(mean)) * mask
    return mean, ops.sum(ops.square(centred), axis=position_axes) / divisor, count


def maximum(x, position_axes, count, mask=None):
    """Returns the largest value of each channel of each sample, (N, C).

    `count` comes from `instance_moments`. A sample without positions has maximum 0.
    """
    if mask is not None:
        x = ops.where(mask > 0, x, -float("inf") if position_axes else 0.0)
    if not position_axes:
        return x
    if 0 in x.shape:  # Keras raises an error for an empty maximum
        return ops.sum(ops.zeros_like(x), axis=position_axes)
    largest = ops.max(x, axis=position_axes)
    return ops.where(count > 0, largest, 0.0) if len(count.shape) else largest


def mean_over_std(mean, biased_variance, count, epsilon):
    """Returns mean / sqrt(unbiased variance + epsilon); one position has variance 0."""
    unbiased = biased_variance * (count / ops.maximum(count - 1.0, 1.0))
    return mean * ops.rsqrt(unbiased + epsilon)


def batch_mean(x, sample_weight=None, synchronized=False):
    """Mean over the samples, (N, C) -> (C,); over all replicas if synchronized.

    `sample_weight`, (N, 1), is the number of positions of each sample. `None` weights
    all samples equally.
    """
    if sample_weight is not None:
        total = batch_mean(sample_weight, synchronized=synchronized)
        weighted = batch_mean(x * sample_weight, synchronized=synchronized)
        return weighted / ops.maximum(total, keras.config.epsilon())
    if synchronized and keras.backend.backend() == "tensorflow":
        return ops.moments(x, axes=[0], synchronized=True)[0]
    return ops.mean(x, axis=0)


def batch_moments(mean, variance, sample_weight=None, synchronized=False):
    """Computes moments of the batch, (C,), from those of its samples, (N, C).

    The law of total variance keeps both terms centred. E[x^2] - E[x]^2 would lose
    all digits where the mean is large relative to the standard deviation.
    """
    batch = batch_mean(mean, sample_weight, synchronized)
    spread = variance + ops.square(mean - batch)
    return batch, batch_mean(spread, sample_weight, synchronized)


def update_moving(variable, batch, momentum, count):
    """Sets variable = momentum * variable + (1 - momentum) * batch.

    The variable is unchanged if `count`, the number of positions or samples behind
    `batch`, is 0: a short last batch leaves some replicas without samples.
    """
    old = ops.cast(variable, batch.dtype)
    batch = ops.where(count > 0, batch, old)
    variable.assign(old * momentum + batch * (1.0 - momentum))


def group_moments(mean, variance, groups):
    """Computes moments of each channel's group, (N, C), from those of the channels."""
    channels = mean.shape[-1]
    shape = (-1, groups, channels // groups)
    mean, variance = ops.reshape(mean, shape), ops.reshape(variance, shape)
    group_mean = ops.mean(mean, axis=-1, keepdims=True)
    spread = variance + ops.square(mean - group_mean)
    group_variance = ops.mean(spread, axis=-1, keepdims=True)
    ones = ops.ones_like(mean)
    return tuple(
        ops.reshape(moment * ones, (-1, channels))
        for moment in (group_mean, group_variance)
    )


def mix(attention, gamma, beta):
    """Mixes the affine transform of each sample: (N, K) x (K, C) -> two of (N, C)."""
    return ops.matmul(attention, gamma), ops.matmul(attention, beta)
