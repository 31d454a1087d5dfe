"""The published optimizer and its schedule."""

import keras
from keras import ops

from train import config


@keras.saving.register_keras_serializable(package="train")
class PublishedSGD(keras.optimizers.SGD):
    """SGD as PyTorch and the paper have it.

    g = gradient + l2 * w;  v = momentum * v + g;  w = w - learning_rate * v

    Keras' own SGD keeps the learning rate inside of the velocity (which differs while
    the rate changes), and its `weight_decay` is decoupled from the gradient.

    Args:
        learning_rate: a number or a schedule.
        momentum: in [0, 1].
        l2: coefficient, on every variable.
    """

    def __init__(self, learning_rate=0.1, momentum=0.9, l2=0.0, **kwargs):
        super().__init__(learning_rate, momentum=momentum, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype) + self.l2 * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            step = self.momentum * velocity + step
            self.assign(velocity, step)
        self.assign_sub(variable, rate * step)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}


@keras.saving.register_keras_serializable(package="train")
class WarmupCosine(keras.optimizers.schedules.CosineDecay):
    """Linear warm-up from 0, then half a cosine to 0, as published.

    rate(i) = L * p / w                               for p = i + 1 < w
            = L / 2 * (1 + cos(pi * (p - w) / (T - w)))    after it

    with i the step, from 0, w the steps of warm-up and T those of the run. Keras'
    schedule is the same function of i instead of i + 1, which loses the first step.
    """

    def __call__(self, step):
        return super().__call__(step + 1)


def create_schedule(
    settings: config.Optimizer, batch_size: int, steps_per_epoch: float, steps: int
) -> WarmupCosine:
    """The learning rate of a run of `steps` steps with the given global batch."""
    peak = settings.learning_rate * batch_size / 256
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), steps - 1)
    if not warmup:
        return WarmupCosine(peak, steps)
    return WarmupCosine(0.0, steps - warmup, warmup_target=peak, warmup_steps=warmup)
