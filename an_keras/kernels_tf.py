"""The large passes of attentive normalization on TensorFlow, compiled, in closed form.

x: (N, P, C), P positions. Everything that attention and normalization need from it has
shape (N, C), written (N, 1, C) here:

    m, v = mean and variance of x over positions                        one pass
    y    = a * (x - m) + b        a, b = f(m, v, parameters)            one pass
    S, T = sums of dy and of dy * (x - m) over positions                one pass
    dx   = a * dy + p * (x - m) + q                                     one pass
           p = 2/P * df/dv,  q = 1/P * (df/dm - a * S)

With "layer" normalization, z = (x - mean) / std over the channels of a position
replaces x - m. TensorFlow differentiates f, from db = S and da = T. The only tensor of
the size of x that is kept for the gradient is x itself. Sums are in float32, of values
centred in groups of up to 16 positions. XLA's own reductions are slow on a CPU if they
are fused with other computations. Instead, the terms of a group are added one by one,
and a product with ones adds the groups.
"""

import contextlib
import math
import threading

import tensorflow as tf
from tensorflow.python.eager import record

MODES = ("training", "always", "never")
GROUP = 16
# Input size, in elements, from which the compiled passes are faster on two CPU cores,
# and the batch size assumed if it is unknown.
SMALLEST, USUAL_BATCH = 100_000, 16
_mode = MODES[0]
_open, _lock = {}, threading.Lock()  # modes of the open contexts, latest last


@contextlib.contextmanager
def kernels(mode: str):
    """Sets when layers that are called (or traced) inside use the compiled passes.

    The mode applies to all threads, because the replicas of a strategy are traced in
    their own threads. If several contexts are open, the latest one applies.

    Args:
        mode: `"training"`, `"always"` or `"never"`.

            - `"training"` (the default outside of any context): Only in training mode
                under a gradient tape, and only for inputs so large that compilation
                pays off. No export then contains a compiled function, which TensorFlow
                Serving rejects, even if a layer is called with `training=True`. A batch
                of unknown size counts as 16.
            - `"always"`: For inputs of any size, also in inference. Do not export
                inside.
            - `"never"`: Nowhere.

    Raises:
        ValueError: If `mode` is unknown.
    """
    global _mode
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}.")
    key = object()
    with _lock:
        _open[key] = _mode = mode
    try:
        yield
    finally:
        with _lock:
            del _open[key]
            _mode = next(reversed(_open.values()), MODES[0])


def apply_here(x, training) -> bool:
    """Returns whether a layer call on x (N, positions, C) uses the compiled passes."""
    trains = training and record.could_possibly_record()  # under a tape
    if _mode == "never" or not (trains or _mode == "always"):
        return False
    if (
        not isinstance(x, tf.Tensor)
        or x.dtype not in (tf.float32, tf.float16, tf.bfloat16)
        or x.shape.rank is None
        or x.shape.rank < 3
        or None in x.shape[1:]
        or math.prod(x.shape[1:-1]) <= 1
    ):
        return False
    size = (x.shape[0] or USUAL_BATCH) * math.prod(x.shape[1:])
    return size >= SMALLEST or _mode == "always"


def has_fused_batch_norm(x) -> bool:
    """Returns whether training on x (N, H, W, C) uses TensorFlow's fused operation.

    It is never used outside of a graph: on a CPU, its oneDNN kernel stores the state of
    a call in members (TensorFlow up to 2.20), and eager calls share kernels. Two
    threads with layers of different width then corrupt memory. Requests share the graph
    of an export, so only graphs under a gradient tape use it.
    """
    return (
        _mode != "never"
        and not tf.executing_eagerly()
        and record.could_possibly_record()
        and isinstance(x, tf.Tensor)
        and x.shape.rank == 4
        and x.dtype in (tf.float32, tf.float16, tf.bfloat16)
    )


def fused_batch_norm(x, gamma, beta, epsilon):
    """Applies TensorFlow's fused batch normalization in training, without compilation.

    Args:
        x: Tensor of shape (N, H, W, C).
        gamma: Scale of shape (C,), float32.
        beta: Offset of shape (C,), float32.
        epsilon: Added to the variance.

    Returns:
        y, and the moments of the batch, (C,), with the biased variance (the operation
        returns n/(n-1) times as much).
    """
    nothing = tf.zeros((0,))
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=nothing,
        variance=nothing,
        epsilon=epsilon,
        is_training=True,
    )
    n = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    return y, mean, variance * (tf.maximum(n - 1.0, 1.0) / n)


def are_read(function, variables) -> list[bool]:
    """Returns which Keras variables a function reads, even if it was traced before."""
    with tf.GradientTape() as tape:
        function()
    handles = {id(variable.handle) for variable in tape.watched_variables()}
    return [id(variable.value.handle) in handles for variable in variables]


def read(variables) -> list:
    """Returns the values of Keras variables as tensors."""
    return [tf.convert_to_tensor(variable.value) for variable in variables]


def normalize(x, affine, parameters: list, layer_epsilon: float | None = None):
    """Computes y = a * z + b, with a, b from moments m, v of each sample and channel.

    z is x - m, or, with `layer_epsilon`, each position standardized over its channels.

    Args:
        x: Tensor of shape (N, positions..., C), in float32 or half precision, with
            static positions.
        affine: Function (m, v, *parameters) -> a, b, others. m, v, a and b have shape
            (N, C), and `others` is a list of tensors. It must not read trained
            variables.
        parameters: Tensors to differentiate `affine` with respect to.
        layer_epsilon: Small float added to the variance over the channels of a
            position.

    Returns:
        y, with the shape and dtype of x, and `others`, without gradients.
    """
    positions = math.prod(x.shape[1:-1])
    over_channels = layer_epsilon is not None

    @tf.custom_gradient
    def function(x, *parameters):
        # Persistent, because a second-order gradient needs its gradient again.
        with tf.GradientTape(persistent=True) as tape:
            mean, variance = _moments(x)
            tape.watch([mean, variance, *parameters])
            scale, offset, others = affine(mean[:, 0], variance[:, 0], *parameters)
            scale, offset = scale[:, None], offset[:, None]
        if over_channels:
            centre, rate = _layer_moments(x, tf.constant(layer_epsilon))
            y = _layer_transform(x, centre, rate, scale, offset)
        else:
            y = _transform(x, mean, scale, offset)
        statistics = (centre, rate) if over_channels else ()
        kept = (x, mean, scale, *statistics)

        def gradient(dy, *_):
            # Compiled functions cannot take a tensor of a tf.cond branch from outside.
            x, centre_of, factor, *statistics = map(tf.identity, kept)
            if over_channels:
                total, moment = _layer_sums(x, dy, *statistics)
            else:
                total, moment = _sums(x, dy, centre_of)
            dmean, dvariance, *dparameters = tape.gradient(
                [scale, offset],
                [mean, variance, *parameters],
                [moment, total],
                unconnected_gradients="zero",
            )
            slope, shift = dvariance * (2.0 / positions), dmean * (1.0 / positions)
            if over_channels:
                dx = _layer_input_gradient(
                    x, dy, *statistics, centre_of, factor, slope, shift
                )
            else:
                shift -= factor * total * (1.0 / positions)
                dx = _input_gradient(x, dy, centre_of, factor, slope, shift)
            return (dx, *dparameters)

        return (y, *map(tf.stop_gradient, others)), gradient

    shape = tf.shape(x)
    y, *others = function(tf.reshape(x, (-1, positions, x.shape[-1])), *parameters)
    return tf.ensure_shape(tf.reshape(y, shape), x.shape), others


def _groups(x):
    """Yields groups: lists of up to 16 terms (N, positions / 16, C) in float32."""
    positions = x.shape[1]
    size = max(d for d in range(1, GROUP + 1) if positions % d == 0)
    if size < 4 < positions:  # large factors: groups of 16 and a remainder
        size = min(GROUP, positions)
    whole = positions - positions % size
    parts = [(x[:, :whole], size), (x[:, whole:], positions - whole)]
    for part, size in parts:
        if size:
            split = tf.reshape(part, (-1, part.shape[1] // size, size, x.shape[2]))
            yield [tf.cast(split[:, :, i], tf.float32) for i in range(size)]


def _add(terms):
    """Sums in pairs, for less rounding and independent additions on the processor."""
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        rest = terms[-1:] if len(terms) % 2 else []
        terms = [a + b for a, b in pairs] + rest
    return terms[0]


def _sum(x, like):
    """Sums over the middle axis as a product with ones that are opaque to XLA."""
    positive = tf.reduce_max(tf.cast(like[:1, :1, :1], tf.float32)) > 0.0
    one = tf.cast(positive, tf.float32) + tf.cast(tf.logical_not(positive), tf.float32)
    return tf.matmul(tf.fill((tf.shape(x)[0], 1, x.shape[1]), one), x)


def compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


@compiled
def _moments(x):
    mean = squares = count = None
    for terms in _groups(x):
        size, groups = len(terms), terms[0].shape[1]
        centre = _add(terms) * (1.0 / size)
        spread = _add([tf.square(term - centre) for term in terms])
        mean_here = _sum(centre, x) * (1.0 / groups)
        squares_here = _sum(
            spread + size * tf.math.squared_difference(centre, mean_here), x
        )
        if mean is None:
            mean, squares, count = mean_here, squares_here, size * groups
            continue
        distance = mean_here - mean  # Chan, Golub and LeVeque 1979
        fraction = size * groups / (count + size * groups)
        squares += squares_here + tf.square(distance) * (count * fraction)
        mean += distance * fraction
    return mean, squares * (1.0 / x.shape[1])


@compiled
def _transform(x, mean, scale, offset):
    return tf.cast((tf.cast(x, tf.float32) - mean) * scale + offset, x.dtype)


def _sums_with(x, dy, z):
    """Returns sums of dy and dy * z over positions, (N, 1, C); z as in `_groups`."""
    total, moment = [], []
    for terms, gradients in zip(z, _groups(dy), strict=True):
        total.append(_sum(_add(list(gradients)), x))
        products = [g * t for t, g in zip(terms, gradients, strict=True)]
        moment.append(_sum(_add(products), x))
    return _add(total), _add(moment)


@compiled
def _sums(x, dy, mean):
    return _sums_with(x, dy, ([t - mean for t in terms] for terms in _groups(x)))


@compiled
def _input_gradient(x, dy, mean, scale, slope, shift):
    x, dtype = tf.cast(x, tf.float32), x.dtype
    dx = tf.cast(dy, tf.float32) * scale + (x - mean) * slope + shift
    return tf.cast(dx, dtype)


def _over_channels(x):
    """Returns the mean over the last axis, with `keepdims`."""
    return tf.reduce_mean(x, axis=-1, keepdims=True)


@compiled
def _layer_moments(x, epsilon):
    x = tf.cast(x, tf.float32)
    centre = _over_channels(x)
    return centre, tf.math.rsqrt(_over_channels(tf.square(x - centre)) + epsilon)


@compiled
def _layer_transform(x, centre, rate, scale, offset):
    z = (tf.cast(x, tf.float32) - centre) * rate
    return tf.cast(z * scale + offset, x.dtype)


@compiled
def _layer_sums(x, dy, centre, rate):
    groups = zip(*map(_groups, (x, centre, rate)), strict=True)
    z = ([(t - c) * r for t, c, r in zip(*group, strict=True)] for group in groups)
    return _sums_with(x, dy, z)


@compiled
def _layer_input_gradient(x, dy, centre, rate, mean, scale, slope, shift):
    x, dtype = tf.cast(x, tf.float32), x.dtype
    dz, z = tf.cast(dy, tf.float32) * scale, (x - centre) * rate
    dx = rate * (dz - _over_channels(dz) - z * _over_channels(dz * z))
    return tf.cast(dx + (x - mean) * slope + shift, dtype)
