"""The published optimizer and its schedule."""

import contextlib

import keras
import tensorflow as tf
from keras import ops

from train import config
from train.cli import RunError

LEAST_SCALE = 2.0**-10


@keras.saving.register_keras_serializable(package="train")
class PublishedSGD(keras.optimizers.SGD):
    """SGD as in PyTorch and the paper.

    g = gradient + l2 * w;  v = momentum * v + g;  w = w - learning_rate * v

    and with Nesterov momentum w = w - learning_rate * (g + momentum * v).

    Keras' own SGD includes the learning rate in the velocity, which differs while the
    rate changes, and decouples its `weight_decay` from the gradient. Gradients arrive
    summed over the replicas and equal on each, so the clipped norm and the finiteness
    check of `LossScaleOptimizer` cover the whole batch.

    Args:
        learning_rate: A number or a schedule.
        momentum: Momentum, in [0, 1].
        nesterov: Whether to use Nesterov momentum.
        l2: L2 coefficient. `exclude_from_weight_decay` excludes variables.
        clip_norm: Largest norm of the gradient over all variables. `None` disables
            clipping.
        average: Decay d in average = d * average + (1 - d) * variable. At step t (from
            0) it is at most (1 + t) / (10 + t), so that the initial values are soon
            forgotten. 0 disables averages.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum=0.9,
        l2=0.0,
        clip_norm=None,
        average=0.0,
        nesterov=False,
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, nesterov, **kwargs)
        self.l2, self.clip_norm, self.average = l2, clip_norm, average
        self.averages = []

    def build(self, variables):
        if not self.built and self.average:
            variables = list(variables)
            self.averages = self.add_optimizer_variables(variables, "average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)
        super().build(variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Clips the gradients, which the trainer has summed over the replicas."""
        if self.clip_norm is None:
            return grads_and_vars
        gradients, variables = zip(*grads_and_vars, strict=True)
        clipped, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        return list(zip(clipped, variables, strict=True))

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable; called by Keras' `apply`."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype)
        update = ops.cast(gradient, variable.dtype)
        if self.l2 and self._use_weight_decay(variable):
            update = update + self.l2 * variable
        if self.momentum:
            velocity, gradient = self.momentums[index], update
            update = self.momentum * velocity + gradient
            self.assign(velocity, update)
            if self.nesterov:
                update = gradient + self.momentum * update
        self.assign_sub(variable, rate * update)
        if self.average:
            average = self.averages[index]
            step = ops.cast(self.iterations, variable.dtype)
            decay = ops.minimum(self.average, (1.0 + step) / (10.0 + step))
            self.assign_sub(average, (1.0 - decay) * (average - variable))

    def get_config(self):
        names = ("l2", "clip_norm", "average")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def create_optimizer(recipe: config.Recipe, schedule, model: keras.Model):
    """Creates the optimizer of a run, built for the model's weights.

    With `"mixed_float16"` it scales the loss, and the published optimizer is its
    `inner_optimizer`.
    """
    settings = recipe.optimizer
    optimizer = PublishedSGD(
        schedule,
        settings.momentum,
        settings.weight_decay,
        settings.clip_norm,
        settings.average,
        settings.nesterov,
    )
    optimizer.exclude_from_weight_decay(
        [v.value for v in model.trainable_variables if not _decays(settings, v)]
    )
    if recipe.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def require_scale(optimizer, first_step: int, last_step: int) -> None:
    """Stops a run whose float16 gradients overflow at any loss scale.

    Raises:
        RunError: If they do. The message names the steps in which it was detected.
    """
    scale = getattr(optimizer, "dynamic_scale", None)
    if scale is not None and float(scale.numpy()) < LEAST_SCALE:
        raise RunError(
            f"Training diverged between steps {first_step} and {last_step}: float16 "
            f"gradients overflow. Expected a loss scale of at least {LEAST_SCALE:g}. "
            f"Received: {float(scale.numpy()):g}."
        )


def decayed_variables(settings: config.Optimizer, model: keras.Model) -> list:
    """Returns the weights that L2 applies to."""
    return [v for v in model.trainable_variables if _decays(settings, v)]


def _decays(settings, variable):
    name = variable.name.removeprefix("hidden_")
    return settings.decay_norms_and_biases or name not in ("gamma", "beta", "bias")


def assign_averages(optimizer, variables: list) -> None:
    """Assigns their averages to variables."""
    for variable, average in zip(variables, _averages(optimizer), strict=True):
        variable.assign(average)


def _averages(optimizer):
    return getattr(optimizer, "inner_optimizer", optimizer).averages


@contextlib.contextmanager
def averaged(optimizer, variables: list):
    """Context in which variables hold their averages, if the optimizer keeps any."""
    if not _averages(optimizer):
        yield
        return
    trained = [variable.numpy() for variable in variables]
    assign_averages(optimizer, variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, trained, strict=True):
            variable.assign(value)


@keras.saving.register_keras_serializable(package="train")
class WarmupCosine(keras.optimizers.schedules.CosineDecay):
    """Linear warm-up from A, then half a cosine to Z, as published with A = Z = 0.

    rate(i) = A + (L - A) * p / w                              for p = i + 1 < w
            = Z + (L - Z) / 2 * (1 + cos(pi * (p - w) / (T - w)))    otherwise

    where i is the step (from 0), L the highest rate, w the number of warm-up steps and
    T the number of steps of the run. Keras' schedule is the same function of i instead
    of i + 1: its first step has the rate 0 and is lost.
    """

    def __call__(self, step):
        return super().__call__(step + 1)


def create_schedule(
    settings: config.Optimizer, batch_size: int, steps_per_epoch: float, steps: int
) -> WarmupCosine:
    """Creates the schedule of a run of `steps` steps with the given global batch."""
    peak = settings.learning_rate * batch_size / 256
    last = settings.final_learning_rate / peak if peak else 0.0
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), steps - 1)
    if not warmup:
        return WarmupCosine(peak, steps, last)
    return WarmupCosine(
        settings.warmup_from * peak,
        steps - warmup,
        last,
        warmup_target=peak,
        warmup_steps=warmup,
    )
