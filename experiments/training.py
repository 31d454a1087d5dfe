"""Trains the network of a run and measures everything that the plan asks for."""

import functools

import keras
import numpy as np
from keras import layers

from an_keras import AttentiveNormalization, BatchNormalization
from examples import fit
from experiments import images, networks, plan

BATCH, DECAY, WARMUP_EPOCHS = 256, 1e-4, 1
FEW_BATCH, FEW_STEPS, FEW_RATE = 64, 300, 0.05
BINS = 15
NORMS = (
    *(AttentiveNormalization, BatchNormalization, networks.BatchInstanceNormalization),
    layers.BatchNormalization,
)


class SGD(fit.PublishedSGD):
    """`fit.PublishedSGD` that does not decay excluded variables."""

    def update_step(self, gradient, variable, learning_rate):
        decay = self.l2
        self.l2 = decay if self._use_weight_decay(variable) else 0.0
        super().update_step(gradient, variable, learning_rate)
        self.l2 = decay


@functools.cache
def read(data, corrupted):
    """Returns the training data, and test images by name: uint8 (N, 28, 28, 1)."""
    arrays = fit.read(data)
    test = arrays["x_test"]
    changed = {"top1": test}
    for name, change in {**images.FORMULAS, **images.OTHERS}.items():
        changed[name] = change(test)
    with np.load(corrupted) as file:
        for name, levels in zip(plan.CORRUPTIONS, file["images"], strict=True):
            for level, cases in zip(plan.SEVERITIES, levels, strict=True):
                changed[f"{name}_{level}"] = cases[..., np.newaxis]
    return arrays, changed


def run(job, epochs, arguments) -> dict:
    """Returns the results of a run, by the names of the columns."""
    arrays, changed = read(arguments.data, arguments.corrupted)
    x, y = arrays["x_train"], arrays["y_train"]
    is_aside = np.random.default_rng(job.seed).permutation(len(x)) % 10 == 9
    batches = images.Batches(x[~is_aside], y[~is_aside], BATCH, job.seed)
    keras.utils.set_random_seed(job.seed)
    network = networks.build(job.network, job.variant, job.momentum)
    model = keras.Sequential([*_preprocessing(x, network), network])
    steps = len(batches)
    rate = fit.schedule(job.rate, WARMUP_EPOCHS * steps, epochs * steps)
    optimizer = SGD(rate, l2=DECAY)
    if job.variant == "an_no_decay":
        attentive = [
            layer
            for layer in network.layers
            if isinstance(layer, AttentiveNormalization)
        ]
        optimizer.exclude_from_weight_decay(
            [variable for layer in attentive for variable in layer.trainable_variables]
        )
    _compile(model, optimizer)
    model.fit(batches, epochs=epochs, verbose=0)
    answers = model.predict(x[is_aside], 1000, verbose=0)
    results = {
        "parameters": network.count_params(),
        "validation_top1": _top1(answers, y[is_aside]),
    }
    if job.stage == plan.TUNING:
        return results
    if arguments.weights:
        name = f"{job.network}.{job.variant}.{job.seed}.weights.h5"
        network.save_weights(arguments.weights / name)
    for name, test in changed.items():
        logits = model.predict(test, 1000, verbose=0)
        labels = arrays["y_test"][: len(test)]
        results[name] = _top1(logits, labels)
        if name == "top1":
            results |= _calibration(logits, labels)
    if job.stage == plan.RUN and (job.network, job.variant) in plan.FEW_LABELS:
        results |= few_labels(job, x, network.get_weights())
    return results


def few_labels(job, x, weights) -> dict:
    """Returns top-1 on digits after training on a few of them."""
    digits, labels = images.digits()
    results = {}
    for trained in ("all", "norms"):
        network = networks.build(job.network, job.variant, job.momentum)
        *_, features, _ = network.layers
        backbone = keras.Model(network.inputs, features.output)
        if trained == "norms":
            for layer in backbone.layers:
                layer.trainable = isinstance(layer, NORMS)
        classifier = layers.Dense(networks.CLASSES)
        classifier.build(features.output.shape)
        model = keras.Sequential([*_preprocessing(x, network), backbone, classifier])
        optimizer = SGD(fit.schedule(FEW_RATE, 0, FEW_STEPS), l2=DECAY)
        _compile(model, optimizer)
        for count, kind, draw in plan.FEW:
            if kind != trained:
                continue
            random = np.random.default_rng((job.seed, draw))
            order = random.permutation(len(digits))
            rank = np.zeros(len(digits), int)  # of an image in its class
            for label in range(networks.CLASSES):
                of_class = order[labels[order] == label]
                rank[of_class] = np.arange(len(of_class))
            chosen = np.flatnonzero(rank < count)
            test = np.flatnonzero(rank >= max(plan.FEW)[0])
            needed = FEW_STEPS * FEW_BATCH
            epochs = -(-needed // len(chosen))
            index = np.concatenate([random.permutation(chosen) for _ in range(epochs)])
            network.set_weights(weights)
            for variable in optimizer.variables:
                variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
            keras.utils.set_random_seed(1000 * job.seed + draw)
            classifier.kernel.assign(
                keras.initializers.GlorotUniform()(classifier.kernel.shape)
            )
            classifier.bias.assign(np.zeros(networks.CLASSES))
            index = index[:needed]
            model.fit(digits[index], labels[index], FEW_BATCH, shuffle=False, verbose=0)
            answers = model.predict(digits[test], 1000, verbose=0)
            name = f"digits_{count}_{trained}_{draw}"
            results[name] = _top1(answers, labels[test])
    return results


def _preprocessing(x, network):
    mean, std = x.mean(), x.std()
    yield layers.Rescaling(float(1 / std), float(-mean / std))
    factor = network.input_shape[1] // x.shape[1]
    if factor > 1:
        yield layers.UpSampling2D(factor, interpolation="bilinear")


def _compile(model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)


def _top1(logits, labels):
    return float((logits.argmax(-1) == labels).mean())


def _calibration(logits, labels):
    """Cross-entropy, and the expected calibration error (Guo et al. 2017)."""
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    confidence, is_right = np.exp(logs.max(-1)), logits.argmax(-1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = sum(
        abs((confidence[bins == i] - is_right[bins == i]).sum()) for i in range(BINS)
    )
    return {
        "loss": float(-logs[np.arange(len(labels)), labels].mean()),
        "ece": float(error / len(labels)),
    }
