"""Recipes and their overrides."""

import dataclasses
import json

import pytest

from train import config, recipes
from train.command import UsageError


def test_overrides_are_typed_by_the_fields():
    recipe = config.override(
        recipes.create_recipe("digits"),
        [
            "optimizer.learning_rate=1",
            "data.mean=0.1,0.2,0.3",
            "data.image_size=32",
            "data.flip=True",
            "model.name=resnet56_an",
            "model.options={'position': 'norm12'}",
            "steps=7",
        ],
    )
    assert recipe.optimizer.learning_rate == 1.0
    assert isinstance(recipe.optimizer.learning_rate, float)
    assert recipe.data.mean == (0.1, 0.2, 0.3)
    assert (recipe.data.image_size, recipe.data.flip) == (32, True)
    assert recipe.model == config.Model("resnet56_an", {"position": "norm12"})
    assert recipe.steps == 7
    assert config.override(recipe, ["data.image_size=None"]).data.image_size is None


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("batch_size", "Expected --set=FIELD=VALUE. Received: 'batch_size'"),
        ("optimizer.rate=1", "Unknown recipe field 'optimizer.rate'.*Received: 'rate'"),
        ("optimiser.momentum=1", "like optimizer.*Received: 'optimiser'"),
        ("optimizer=1", "Expected the full name of one recipe field"),
        ("batch_size.x=1", "Expected the full name of one recipe field"),
        ("batch_size=many", "batch_size must be of type int. Received: 'many'"),
        ("batch_size=1.5", "batch_size must be of type int"),
        ("batch_size=True", "batch_size must be of type int"),
        ("data.flip=1", "data.flip must be of type bool"),
        ("data.mean=a", "data.mean must be of type"),
        ("batch_size=0", "batch_size must be from 1 to .* Received: 0"),
        ("epochs=0", "epochs must be from"),
        ("epochs=1e400", "epochs must be from .* Received: inf"),
        ("steps=99999999999999999999", "steps must be from 1 to"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate must be from 0"),
        ("optimizer.momentum=7", "optimizer.momentum must be from 0 to 1"),
        ("model.options={[]:1}", "model.options must be of type dict"),
        ("seed=-1", "seed must be from 0 to"),
        ("data.std=0.0", "data.std must be from"),
        ("data.min_crop_area=2", "data.min_crop_area must be from"),
        ("data.validation_fraction=1.0", "data.validation_fraction must be from"),
        ("data.mean=()", "data.mean must hold a number"),
        ("model.options={'a': {1, 2}}", "model.options must be plain values"),
    ],
)
def test_bad_overrides_are_usage_errors(assignment, words):
    with pytest.raises(UsageError, match=words):
        config.override(recipes.create_recipe("digits"), [assignment])


def test_unknown_recipe_lists_the_nearest():
    with pytest.raises(UsageError, match="like digits.*Received: 'digit'"):
        recipes.create_recipe("digit")


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_survives_json(name):
    recipe = recipes.create_recipe(name)
    text = json.dumps(dataclasses.asdict(recipe))
    assert config.from_dict(config.Recipe, json.loads(text)) == recipe


def test_twins_differ_in_the_network_only():
    an, bn = recipes.create_recipe("digits"), recipes.create_recipe("digits_bn")
    assert an != bn
    assert dataclasses.replace(an, model=bn.model) == bn
