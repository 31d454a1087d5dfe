"""What `train.benchmark` measures: calls of layers, by variant and phase.

Most functions yield (case, {(variant, phase): call}); `peak` and `startup` measure by
themselves. TensorFlow variants are traced once, PyTorch variants run eagerly.
"""

import functools
import importlib.util
import time

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import model_zoo
from an_keras import AttentiveNormalization, BatchNormalization, kernels_tf
from an_keras.kernels_tf import kernels
from benchmarks import networks

# (height and width, channels) of the 3x3 convolutions of a ResNet-50 -> K.
SHAPES = {(56, 64): 10, (28, 128): 10, (14, 256): 20, (7, 512): 20}


class Composite(keras.layers.Layer):
    """Attentive normalization written as its equations, in TensorFlow operations."""

    def __init__(self, num_components):
        super().__init__()
        self.num_components = num_components
        self.normalize = keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, center=False, scale=False
        )
        self.gate_norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)

    def build(self, shape):
        table = (self.num_components, shape[-1])
        self.gamma = self.add_weight(shape=table, initializer="ones")
        self.beta = self.add_weight(shape=table, initializer="zeros")
        self.kernel = self.add_weight(shape=table[::-1], initializer="he_normal")
        self.normalize.build(shape)
        self.gate_norm.build((None, self.num_components))

    def call(self, x, training=None):
        mean, variance = ops.moments(x, axes=[1, 2])
        positions = x.shape[1] * x.shape[2]
        unbiased = variance * (positions / (positions - 1))
        logits = ops.matmul(mean * ops.rsqrt(unbiased + 1e-3), self.kernel)
        attention = ops.hard_sigmoid(self.gate_norm(logits, training=training))
        gamma, beta = attention @ self.gamma, attention @ self.beta
        x = self.normalize(x, training=training)
        return gamma[:, None, None] * x + beta[:, None, None]


def layer(settings):
    """One normalization layer: forward and backward, and inference."""
    for (size, channels), components in SHAPES.items():
        shape = (settings["batch"], size, size, channels)
        rng = np.random.default_rng(0)
        x, dy = (rng.normal(size=shape).astype("float32") for _ in range(2))
        plain_bn = functools.partial(
            keras.layers.BatchNormalization, momentum=0.9, epsilon=1e-5
        )
        variants = {
            "Keras BN": (plain_bn(), "training"),
            "BN": (BatchNormalization(momentum=0.9, epsilon=1e-5), "training"),
            "AN": (AttentiveNormalization(components), "training"),
            "AN compiled": (AttentiveNormalization(components), "always"),
            "AN plain": (AttentiveNormalization(components), "never"),
            "AN composite": (Composite(components), "training"),
        }
        calls = {}
        for name, (each, mode) in variants.items():
            calls |= _tensorflow_calls(name, each, mode, x, dy)
        if importlib.util.find_spec("torch"):
            calls |= _pytorch_calls(x, dy, components, settings["threads"])
        yield {"case": f"{size}x{size}x{channels}"}, calls


def _tensorflow_calls(name, each, mode, x, dy):
    x, dy = tf.constant(x), tf.constant(dy)
    with kernels(mode):
        each.build(x.shape)
        variables = [variable.value for variable in each.trainable_variables]

        @tf.function
        def train(x, dy):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = each(x, training=True)
            return tape.gradient(y, [x, *variables], dy)

        @tf.function
        def infer(x):
            return each(x, training=False)

        train(x, dy), infer(x)
    return {
        (name, "training"): functools.partial(train, x, dy),
        (name, "inference"): functools.partial(infer, x),
    }


def _pytorch_calls(x, dy, components, threads):
    """The same layers in eager PyTorch, channels first as usual there."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    x, dy = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in (x, dy))
    channels = x.shape[1]

    def parameter(*shape):
        return torch.randn(*shape, requires_grad=True)

    statistics, gate_statistics = (
        (torch.zeros(size), torch.ones(size)) for size in (channels, components)
    )
    gamma, beta = parameter(channels), parameter(channels)
    gammas, betas = parameter(components, channels), parameter(components, channels)
    kernel = parameter(components, channels)
    gate_gamma, gate_beta = parameter(components), parameter(components)

    def batch(x, training):
        return functional.batch_norm(x, *statistics, gamma, beta, training)

    def attentive(x, training):
        variance, mean = torch.var_mean(x, (2, 3))
        logits = functional.linear(mean * torch.rsqrt(variance + 1e-3), kernel)
        logits = functional.batch_norm(
            logits, *gate_statistics, gate_gamma, gate_beta, training
        )
        attention = functional.hardsigmoid(logits)
        x = functional.batch_norm(x, *statistics, training=training)
        scale, offset = attention @ gammas, attention @ betas
        return scale[..., None, None] * x + offset[..., None, None]

    def train(forward):
        inputs = x.requires_grad_()
        inputs.grad = None
        forward(inputs, True).backward(dy)

    def infer(forward):
        with torch.no_grad():
            forward(x, False)

    return {
        (name, phase): functools.partial(run, forward)
        for name, forward in (("PyTorch BN", batch), ("PyTorch AN", attentive))
        for phase, run in (("training", train), ("inference", infer))
    }


def passes(settings):
    """The compiled passes of a layer and TensorFlow's simplest operations."""
    for (size, channels), components in SHAPES.items():
        x, dy = (
            tf.random.normal((settings["batch"], size * size, channels))
            for _ in range(2)
        )
        small = [tf.random.normal((settings["batch"], 1, channels)) for _ in range(4)]
        functions = {
            "empty call": lambda x, dy: x,
            "one sum": lambda x, dy: tf.reduce_sum(x, axis=1),  # one read
            "one negation": lambda x, dy: -x,  # one read and one write
            "one addition": lambda x, dy: x + dy,  # two reads and one write
            "moments": lambda x, dy: kernels_tf._moments(x),
            "transform": lambda x, dy, s=small: kernels_tf._transform(x, *s[:3]),
            "sums": lambda x, dy, s=small: kernels_tf._sums(x, dy, s[0]),
            "input gradient": lambda x, dy, s=small: kernels_tf._input_gradient(
                x, dy, *s
            ),
        }
        calls = {
            (name, "training"): functools.partial(tf.function(function), x, dy)
            for name, function in functions.items()
        }
        image = (settings["batch"], size, size, channels)
        x, dy = tf.reshape(x, image), tf.reshape(dy, image)
        for name, each in (
            ("AN", AttentiveNormalization(components)),
            ("BN", BatchNormalization(momentum=0.9, epsilon=1e-5)),
        ):
            both = _tensorflow_calls(name, each, "always", x, dy)
            calls[name, "training"] = both[name, "training"]
        yield {"case": f"{size}x{size}x{channels}"}, calls


def size(settings):
    """Compiled and plain operations on 7 x 7 positions with a growing channel count."""
    for channels in (32, 64, 128, 256, 512):
        shape = (settings["batch"], 7, 7, channels)
        x, dy = (tf.random.normal(shape) for _ in range(2))
        calls = {}
        for name, mode in (("AN plain", "never"), ("AN compiled", "always")):
            both = _tensorflow_calls(name, AttentiveNormalization(10), mode, x, dy)
            calls[name, "training"] = both[name, "training"]
        yield {"case": f"{x.shape.num_elements():,} numbers"}, calls


def scaling(settings):
    """A layer on 16 images of 28 x 28 x 128, K = 10, with one size varied at a time."""
    base = {"N": 16, "H W": 28 * 28, "C": 128, "K": 10}
    steps = {
        "N": (4, 8, 16, 32),
        "H W": (14 * 14, 20 * 20, 28 * 28, 40 * 40),
        "C": (32, 64, 128, 256),
        "K": (5, 10, 20, 40),
    }
    rng = np.random.default_rng(0)
    for axis, values in steps.items():
        for value in values:
            sizes = {**base, axis: value}
            size = round(sizes["H W"] ** 0.5)
            shape = (sizes["N"], size, size, sizes["C"])
            x, dy = (rng.normal(size=shape).astype("float32") for _ in range(2))
            bn = BatchNormalization(momentum=0.9, epsilon=1e-5)
            an = AttentiveNormalization(sizes["K"])
            calls = _tensorflow_calls("BN", bn, "training", x, dy)
            calls |= _tensorflow_calls("AN", an, "training", x, dy)
            yield {"case": axis, "at": value}, calls


def startup(settings):
    """Seconds to build a ResNet-20, for its first steps, and for a later step."""
    clock = [time.perf_counter()]

    def lap():
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    kind, mode = {"BN": ("bn", "training"), "AN": ("an", "training")}.get(
        settings["variant"], ("an", "never")
    )
    phases = {}
    with kernels(mode):
        model = model_zoo.create_model(f"resnet20_{kind}")
        phases["build"] = lap()
        train, _ = networks.functions(model)
        for phase, batch in (
            ("first step", 32),
            ("step", 32),
            ("first step of 24 images", 24),
        ):
            images, labels = tf.zeros((batch, 32, 32, 3)), tf.zeros(batch, tf.int32)
            lap()
            train(images, labels)
            phases[phase] = lap()
    return phases


def peak(settings):
    """The peak memory of the process after one training step of a chain of layers."""
    size, channels = 56, 64
    x = tf.random.normal((settings["batch"], size, size, channels))
    make, mode = {
        "AN": (AttentiveNormalization, "training"),
        "AN plain": (AttentiveNormalization, "never"),
        "AN composite": (lambda: Composite(10), "training"),
        "BN": (BatchNormalization, "training"),
        "Keras BN": (keras.layers.BatchNormalization, "training"),
    }[settings["variant"]]
    chain = [make() for _ in range(settings["layers"])]
    for each in chain:
        each.build(x.shape)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for each in chain:
                y = each(y, training=True)
        return tape.gradient(y, x)

    with kernels(mode):
        step(x).numpy()
    return {
        "case": f"{size}x{size}x{channels}, batch {settings['batch']}",
        "peak": networks.peak_of_memory(),
        "size": x.shape.num_elements() * 4,
    }
