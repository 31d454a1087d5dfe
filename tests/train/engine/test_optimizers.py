"""The published optimizer and schedule."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import model_zoo
from train import config, recipes
from train.cli import RunError
from train.engine import optimizers


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_matches_the_equations_while_the_rate_changes(nesterov):
    rates = [0.1, 0.5, 0.02, 0.3]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], rates)
    optimizer = optimizers.PublishedSGD(
        schedule, momentum=0.9, l2=0.01, nesterov=nesterov
    )
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    for step, rate in enumerate(rates):
        gradient = np.array([0.3, 0.1]) * (step + 1)
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [variable])
        gradient = gradient + 0.01 * w
        v = 0.9 * v + gradient
        w = w - rate * (gradient + 0.9 * v if nesterov else v)
    np.testing.assert_allclose(ops.convert_to_numpy(variable), w, rtol=1e-6)


def test_optimizer_is_restored_from_its_config():
    optimizer = optimizers.PublishedSGD(
        0.3, momentum=0.8, l2=0.02, clip_norm=2.0, average=0.9, nesterov=True
    )
    again = optimizers.PublishedSGD.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    assert (again.momentum, again.l2, again.nesterov) == (0.8, 0.02, True)
    assert (again.clip_norm, again.average) == (2.0, 0.9)


def test_averages_follow_the_weights_and_can_replace_them():
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    optimizer = optimizers.PublishedSGD(0.5, momentum=0.0, average=0.9)
    optimizer.build([variable])
    average = np.array([1.0, -2.0])
    for step in range(100):
        optimizer.apply([ops.convert_to_tensor([1.0, 2.0])], [variable])
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * ops.convert_to_numpy(variable)
    own = ops.convert_to_numpy(variable)
    with optimizers.averaged(optimizer, [variable]):
        np.testing.assert_allclose(variable.numpy(), average, rtol=1e-6)
    np.testing.assert_array_equal(variable.numpy(), own)
    plain = optimizers.PublishedSGD(0.5)
    with optimizers.averaged(plain, [variable]):
        np.testing.assert_array_equal(variable.numpy(), own)


def test_gradient_of_all_weights_is_clipped():
    pair = [keras.Variable(np.zeros(2, "float32")) for _ in range(2)]
    optimizer = optimizers.PublishedSGD(1.0, momentum=0.0, clip_norm=1.0)
    optimizer.apply([ops.convert_to_tensor(g) for g in ([3.0, 0.0], [0.0, 4.0])], pair)
    np.testing.assert_allclose(pair[0].numpy(), [-0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(pair[1].numpy(), [0.0, -0.8], rtol=1e-6)
    small = [ops.convert_to_tensor(g) for g in ([0.3, 0.0], [0.0, 0.4])]
    optimizer.apply(small, pair)
    np.testing.assert_allclose(pair[0].numpy(), [-0.9, 0.0], rtol=1e-6)


def test_norms_and_biases_can_be_excluded_from_weight_decay():
    model = model_zoo.create_model("resnet20_an", input_shape=(8, 8, 1))
    recipe = recipes.create_recipe("digits")
    settings = dataclasses.replace(recipe.optimizer, decay_norms_and_biases=False)
    recipe = dataclasses.replace(recipe, optimizer=settings)
    optimizer = optimizers.create_optimizer(recipe, 0.1, model)
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    optimizer.apply([ops.zeros(variable.shape) for variable in variables], variables)
    decayed = {v.path for v in optimizers.decayed_variables(settings, model)}
    for old, variable in zip(before, variables, strict=True):
        shrinks = variable.path in decayed and np.any(old)
        assert np.any(variable.numpy() != old) == shrinks, variable.path
    assert {path.rpartition("/")[2] for path in decayed} == {"kernel"}
    everything = optimizers.decayed_variables(
        recipes.create_recipe("digits").optimizer, model
    )
    assert len(everything) == len(variables)


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
def test_warmup_is_not_longer_than_the_run(steps):
    schedule = optimizers.create_schedule(config.Optimizer(), 256, 10, steps)
    rates = [float(schedule(step)) for step in range(steps)]
    assert np.isfinite(rates).all() and rates[-1] == pytest.approx(0, abs=1e-6)


def test_collapsed_loss_scale_stops_the_run():
    variable = keras.Variable(np.ones(2, "float32"))
    optimizer = keras.optimizers.LossScaleOptimizer(optimizers.PublishedSGD(0.1))
    optimizer.build([variable])
    optimizers.require_scale(optimizer, 1, 5)
    optimizers.require_scale(optimizer.inner_optimizer, 1, 5)  # has none
    for _ in range(30):
        optimizer.apply([ops.convert_to_tensor([np.nan, 1.0])], [variable])
    with pytest.raises(RunError, match="between steps 6 and 36: float16 gradients"):
        optimizers.require_scale(optimizer, 6, 36)
