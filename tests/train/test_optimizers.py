"""The published optimizer and schedule."""

import keras
import numpy as np
import pytest
from keras import ops

from train import config, optimizers


def test_sgd_equals_the_equations_while_the_rate_changes():
    rates = [0.1, 0.5, 0.02, 0.3]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], rates)
    optimizer = optimizers.PublishedSGD(schedule, momentum=0.9, l2=0.01)
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for step, rate in enumerate(rates):
        gradient = np.array([0.3, 0.1]) * (step + 1)
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [variable])
        v = 0.9 * v + gradient + 0.01 * w
        w = w - rate * v
    np.testing.assert_allclose(ops.convert_to_numpy(variable), w, rtol=1e-6)


def test_optimizer_survives_its_config():
    optimizer = optimizers.PublishedSGD(0.3, momentum=0.8, l2=0.02)
    again = optimizers.PublishedSGD.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.l2) == (0.8, 0.02)


def test_schedule_is_the_published_one():
    steps, per_epoch, peak = 200, 10, 0.4
    settings = config.Optimizer(learning_rate=0.1, warmup_epochs=5)
    schedule = optimizers.create_schedule(settings, 1024, per_epoch, steps)
    for step in (0, 10, 49, 50, 120, 198, 199):
        p, w, total = (step + 1) / per_epoch, 5, steps / per_epoch
        if p <= w:
            expected = peak * p / w
        else:
            expected = peak / 2 * (1 + np.cos(np.pi * (p - w) / (total - w)))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_short_runs_warm_up_no_longer_than_they_last(steps):
    schedule = optimizers.create_schedule(config.Optimizer(), 256, 10, steps)
    rates = [float(schedule(step)) for step in range(steps)]
    assert np.isfinite(rates).all() and rates[-1] == pytest.approx(0, abs=1e-6)
