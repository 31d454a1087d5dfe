"""The published training: settings and learning rates of both code bases."""

import math

import numpy as np
import pytest

from train import recipes
from train.engine import optimizers
from train.recipes import imagenet

IMAGES = 1_281_167
TABLE = {  # epochs, batch, learning rate of the batch, L2, extras
    "resnet50_an_120e": (120, 1024, 0.4, 1e-4, False),
    "resnet101_bn_120e": (120, 1024, 0.4, 1e-4, False),
    "resnet50d_an_200e": (200, 1024, 0.4, 1e-4, True),
    "resnet101d_bn_200e": (200, 1024, 0.4, 1e-4, True),
    "mobilenetv2_an_150e": (150, 1024, 0.2, 4e-5, False),
    "aognet_12m_bn_120e": (120, 2048, 0.8, 1e-4, False),
    "aognet_12m_an_200e": (200, 2048, 0.8, 1e-4, True),
    "aognet_40m_an_120e": (120, 1024, 0.4, 1e-4, False),
    "aognet_40m_bn_200e": (200, 1024, 0.4, 1e-4, True),
    "resnet34_se_120e": (120, 2048, 0.8, 1e-4, False),
    "resnet50_an_120e_release": (120, 2048, 0.8, 1e-4, False),
    "resnet50_se_120e": (120, 2048, 0.8, 1e-4, False),
    "densenet121_an_120e": (120, 2048, 0.8, 1e-4, False),
    "mobilenetv2_bn_150e_release": (150, 1024, 0.2, 4e-5, False),
    "aognet_40m_an_200e_release": (200, 1024, 0.4, 1e-4, True),
}


@pytest.mark.parametrize("name", TABLE)
def test_training_is_the_published_one(name):
    epochs, batch, rate, decay, extras = TABLE[name]
    recipe = recipes.create_recipe(name)
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch)
    assert recipe.optimizer.learning_rate * batch / 256 == pytest.approx(rate)
    assert recipe.optimizer.weight_decay == decay
    assert recipe.optimizer.decay_norms_and_biases
    assert recipe.optimizer.momentum == 0.9
    assert recipe.label_smoothing == (0.1 if extras else 0)
    assert recipe.data.mixup == (0.2 if extras else 0)
    assert (recipe.data.image_size, recipe.data.shorter_side) == (224, 256)
    assert recipe.data.min_crop_area == 0.08 and recipe.data.flip
    assert recipe.data.validation_fraction == 0


@pytest.mark.parametrize("name", imagenet.RECIPES)
def test_learning_rate_equals_the_published_formula(name):
    recipe = recipes.create_recipe(name)
    n = IMAGES / recipe.batch_size
    peak = recipe.optimizer.learning_rate * recipe.batch_size / 256
    steps = math.ceil(recipe.epochs * n)
    schedule = optimizers.create_schedule(recipe.optimizer, recipe.batch_size, n, steps)
    is_release = recipe.optimizer.warmup_from > 0
    first, last = (peak / 100, 1e-6) if is_release else (0, 0)
    for epoch in (0, 1, 4.5, 6, 40, 80, recipe.epochs - 5, recipe.epochs - 1):
        i = round(epoch * n)
        p = (i + 1) / n
        if p < 5:
            expected = first + (peak - first) * p / 5
        else:
            cosine = (1 + np.cos(np.pi * (p - 5) / (recipe.epochs - 5))) / 2
            expected = last + (peak - last) * cosine
        # a warm-up of whole steps begins up to half a step earlier or later
        assert float(schedule(i)) == pytest.approx(expected, rel=2e-3, abs=1e-3 * peak)


def test_the_papers_bn_twins_of_aognets_differ_as_published():
    for network, field, value in (
        ("aognet_12m", "data.interpolation", "bicubic"),
        ("aognet_40m", "optimizer.nesterov", True),
    ):
        part, name = field.split(".")
        for suffix, expected in (
            ("bn_120e", True),
            ("an_120e", False),
            ("bn_200e", False),
            ("bn_120e_release", False),
        ):
            recipe = recipes.create_recipe(f"{network}_{suffix}")
            received = getattr(getattr(recipe, part), name)
            assert (received == value) is expected


def test_release_differs_in_warmup_end_and_mixup():
    for name in imagenet.RECIPES:
        recipe = recipes.create_recipe(name)
        is_release = name.endswith("_release") or name.startswith(
            ("resnet34", "resnet50_se", "densenet")
        )
        assert recipe.data.mixup_reversed is is_release
        assert recipe.optimizer.warmup_from == (0.01 if is_release else 0)
        assert recipe.optimizer.final_learning_rate == (1e-6 if is_release else 0)
