"""Trains the networks of the plan on JAX, and measures everything that it asks for."""

import functools

import jax
import jax.numpy as jnp
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


class Trainer:
    """Trains a model with `fit.PublishedSGD`, many steps in one compiled loop.

    The steps are those of `keras.Model.fit`, but small networks do not wait for Python.
    """

    def __init__(self, model, not_decayed=()):
        self.model, self.optimizer = model, SGD(0.1, l2=DECAY)
        self.optimizer.exclude_from_weight_decay([*not_decayed])
        self.optimizer.build(model.trainable_variables)
        self.variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            self.optimizer.variables,
        )
        self.loop = jax.jit(self._loop)
        self.answer = jax.jit(self._answer)

    def restart(self):
        """Zeros the state of the optimizer."""
        for variable in self.optimizer.variables:
            variable.assign(jnp.zeros(variable.shape, variable.dtype))

    def fit(self, x, y, rates, order, *augmentation):
        """Trains a step for each rate and each row of `order`; see `images.epoch`."""
        state = [[v.value for v in variables] for variables in self.variables]
        drawn = (rates.astype(np.float32), order, *augmentation)
        state = self.loop(state, x, y, tuple(map(jnp.asarray, drawn)))
        for variables, values in zip(self.variables, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _loop(self, state, x, y, drawn):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def value(trainable, fixed, seen, labels):
            logits, fixed = self.model.stateless_call(
                trainable, fixed, seen, training=True
            )
            return loss(labels, logits), fixed

        def step(state, drawn):
            (trainable, fixed, (iteration, _, *velocities)), (rate, *drawn) = (
                state,
                drawn,
            )
            order = drawn[0]
            seen = images.augmented(x, *drawn) if drawn[1:] else x[order]
            gradient = jax.grad(value, has_aux=True)
            gradients, fixed = gradient(trainable, fixed, seen, y[order])
            trainable, slots = self.optimizer.stateless_apply(
                [iteration, rate, *velocities], gradients, trainable
            )
            return [trainable, fixed, slots], None

        return jax.lax.scan(step, state, drawn)[0]

    def predict(self, x, batch_size=1000):
        """Returns the logits."""
        weights = [[v.value for v in variables] for variables in self.variables[:2]]
        starts = range(0, len(x), batch_size)
        answers = [
            self.answer(*weights, x[start : start + batch_size]) for start in starts
        ]
        return np.concatenate(answers)

    def _answer(self, trainable, fixed, x):
        return self.model.stateless_call(trainable, fixed, x, training=False)[0]


@functools.cache
def read(data, corrupted):
    """Returns the training data, and test images by name: uint8 (N, 28, 28, 1).

    On the device are `padded` training images and their `labels`.
    """
    arrays = fit.read(data)
    margin = (images.PADDING, images.PADDING)
    padded = np.pad(arrays["x_train"], ((0, 0), margin, margin, (0, 0)))
    arrays |= {"padded": jnp.asarray(padded), "labels": jnp.asarray(arrays["y_train"])}
    test = arrays["x_test"]
    changed = {"top1": test}
    for name, change in {**images.FORMULAS, **images.OTHERS}.items():
        changed[name] = change(test)
    with np.load(corrupted) as file:
        for name, levels in zip(plan.CORRUPTIONS, file["images"], strict=True):
            for level, cases in zip(plan.SEVERITIES, levels, strict=True):
                changed[f"{name}_{level}"] = cases[..., np.newaxis]
    return arrays, changed


def train(job, arrays):
    """Returns the trainer of the trained network, and top-1 on validation images."""
    x, y = arrays["x_train"], arrays["y_train"]
    is_aside = np.random.default_rng(job.seed).permutation(len(x)) % 10 == 9
    used = np.flatnonzero(~is_aside)
    steps, epochs = len(used) // BATCH, plan.EPOCHS[job.stage]
    keras.utils.set_random_seed(job.seed)
    weights = networks.build(job.network, job.variant, job.momentum).get_weights()
    trainer = _trainer(job.network, job.variant, job.momentum, x.mean(), x.std())
    trainer.model.layers[-1].set_weights(weights)
    trainer.restart()
    schedule = fit.schedule(job.rate, WARMUP_EPOCHS * steps, epochs * steps)
    rates = np.array([schedule(step) for step in range(epochs * steps)])
    for epoch in range(epochs):
        order, *augmentation = images.epoch(job.seed, epoch, len(used), BATCH)
        of_epoch = rates[epoch * steps : (epoch + 1) * steps]
        of_images = arrays["padded"], arrays["labels"]
        trainer.fit(*of_images, of_epoch, used[order], *augmentation)
    answers = trainer.predict(x[is_aside])
    return trainer, _top1(answers, y[is_aside])


@functools.cache
def _trainer(network, variant, momentum, mean, std):
    """The trainer of all runs of this network, which is compiled once."""
    model = networks.build(network, variant, momentum)
    not_decayed = ()
    if variant == "an_no_decay":
        not_decayed = [
            variable
            for layer in model.layers
            if isinstance(layer, AttentiveNormalization)
            for variable in layer.trainable_variables
        ]
    return Trainer(_with_preprocessing(model, mean, std), not_decayed)


def run(job, arguments) -> dict:
    """Returns the results of a run, by the names of the columns."""
    arrays, changed = read(arguments.data, arguments.corrupted)
    trainer, validation = train(job, arrays)
    network = trainer.model.layers[-1]
    results = {"parameters": network.count_params(), "validation_top1": validation}
    if job.stage == plan.TUNING:
        return results
    if arguments.weights:
        name = f"{job.network}.{job.variant}.{job.seed}.weights.h5"
        network.save_weights(arguments.weights / name)
    for name, test in changed.items():
        logits = trainer.predict(test)
        labels = arrays["y_test"][: len(test)]
        results[name] = _top1(logits, labels)
        if name == "top1":
            results |= _calibration(logits, labels)
    if job.stage == plan.RUN and (job.network, job.variant) in plan.FEW_LABELS:
        x = arrays["x_train"]
        results |= few_labels(job, network.get_weights(), x.mean(), x.std())
    return results


@functools.cache
def _few_labels_trainer(network, variant, momentum, trained, mean, std):
    pretrained = networks.build(network, variant, momentum)
    *_, features, _ = pretrained.layers
    backbone = keras.Model(pretrained.inputs, features.output)
    for layer in backbone.layers:
        layer.trainable = trained == "all" or isinstance(layer, NORMS)
    classified = layers.Dense(networks.CLASSES)(backbone.output)
    model = keras.Model(backbone.input, classified)
    return pretrained, Trainer(_with_preprocessing(model, mean, std))


def few_labels(job, weights, mean, std) -> dict:
    """Returns top-1 on digits after training on a few of them."""
    digits, labels = images.digits()
    on_device = jnp.asarray(digits), jnp.asarray(labels)
    schedule = fit.schedule(FEW_RATE, 0, FEW_STEPS)
    rates = np.array([schedule(step) for step in range(FEW_STEPS)])
    results = {}
    for count, trained, draw in plan.FEW:
        pretrained, trainer = _few_labels_trainer(
            job.network, job.variant, job.momentum, trained, mean, std
        )
        random = np.random.default_rng((job.seed, draw))
        rank = images.rank_in_class(labels, random)
        chosen = np.flatnonzero(rank < count)
        test = rank >= max(plan.FEW)[0]
        needed = FEW_STEPS * FEW_BATCH
        repeats = -(-needed // len(chosen))
        order = np.concatenate([random.permutation(chosen) for _ in range(repeats)])
        pretrained.set_weights(weights)
        trainer.restart()
        classifier = trainer.model.layers[-1].layers[-1]
        features = classifier.kernel.shape[0]
        bound = 1 / np.sqrt(features)
        kernel = random.uniform(-bound, bound, (features, networks.CLASSES))
        classifier.set_weights([kernel, np.zeros(networks.CLASSES)])
        order = order[:needed].reshape(FEW_STEPS, FEW_BATCH)
        trainer.fit(*on_device, rates, order)
        answers = trainer.predict(digits[test])
        results[f"digits_{count}_{trained}_{draw}"] = _top1(answers, labels[test])
    return results


def _with_preprocessing(network, mean, std):
    factor = network.input_shape[1] // 28
    before = [layers.Rescaling(float(1 / std), float(-mean / std))]
    if factor > 1:
        before.append(layers.UpSampling2D(factor, interpolation="bilinear"))
    return keras.Sequential([keras.Input((28, 28, 1)), *before, network])


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
