"""The published training: settings and learning rates of both code bases."""

import math
import re

import numpy as np
import pytest

from train import recipes
from train.engine import optimizers
from train.recipes import imagenet

IMAGES = 1_281_167
BN_AN = ("bn", "an")
ROWS = (  # networks, kinds, epochs; batch, learning rate of the batch, L2, extras
    # The paper's code.
    ("resnet50 resnet101 aognet_40m", BN_AN, "120e", (1024, 0.4, 1e-4, False)),
    ("aognet_12m", BN_AN, "120e", (2048, 0.8, 1e-4, False)),
    ("mobilenetv2", BN_AN, "150e", (1024, 0.2, 4e-5, False)),
    ("resnet50d resnet101d aognet_40m", BN_AN, "200e", (1024, 0.4, 1e-4, True)),
    ("aognet_12m", BN_AN, "200e", (2048, 0.8, 1e-4, True)),
    # The release: what only it has, then what both have.
    ("resnet34 densenet121", BN_AN, "120e", (2048, 0.8, 1e-4, False)),
    ("resnet34 resnet50", ("se",), "120e", (2048, 0.8, 1e-4, False)),
    ("resnet34", ("an_norm12",), "120e", (2048, 0.8, 1e-4, False)),
    ("resnet50", ("an_norm3", "an_all"), "120e", (2048, 0.8, 1e-4, False)),
    ("resnet50", ("se_norm3", "se_norm123"), "120e", (2048, 0.8, 1e-4, False)),
    ("resnet50 aognet_12m", BN_AN, "120e_release", (2048, 0.8, 1e-4, False)),
    ("resnet101 aognet_40m", BN_AN, "120e_release", (1024, 0.4, 1e-4, False)),
    ("mobilenetv2", BN_AN, "150e_release", (1024, 0.2, 4e-5, False)),
    ("resnet50d aognet_12m", BN_AN, "200e_release", (2048, 0.8, 1e-4, True)),
    ("resnet101d aognet_40m", BN_AN, "200e_release", (1024, 0.4, 1e-4, True)),
)
TABLE = {
    f"{network}_{kind}_{epochs}": values
    for networks, kinds, epochs, values in ROWS
    for network in networks.split()
    for kind in kinds
}


def test_every_recipe_is_in_the_table():
    assert TABLE.keys() == imagenet.RECIPES.keys()


@pytest.mark.parametrize("name", TABLE)
def test_training_is_the_published_one(name):
    batch, rate, decay, extras = TABLE[name]
    epochs = int(re.search(r"_(\d+)e", name)[1])
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
    batch, peak, _, _ = TABLE[name]
    n = IMAGES / batch
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
        is_release = name.endswith("_release") or bool(
            re.match("resnet34|densenet|resnet50_se|resnet50_an_(norm3|all)", name)
        )
        assert recipe.data.mixup_reversed is is_release
        assert recipe.optimizer.warmup_from == (0.01 if is_release else 0)
        assert recipe.optimizer.final_learning_rate == (1e-6 if is_release else 0)


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("resnet34_an_norm12_120e", "norm12"),
        ("resnet50_an_norm3_120e", "norm3"),
        ("resnet50_an_all_120e", "all"),
        ("resnet50_se_norm3_120e", "norm3"),
        ("resnet50_se_norm123_120e", "norm123"),
    ],
)
def test_other_positions_are_options_of_the_network(name, position):
    model = recipes.create_recipe(name).model
    assert name.startswith(model.name) and model.options == {"position": position}
    assert recipes.create_recipe("resnet50_an_120e").model.options == {}
