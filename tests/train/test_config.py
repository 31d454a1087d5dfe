"""Recipes and their overrides."""

import dataclasses
import json
import re
import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from model_zoo import weight_sets
from train import config, fields, recipes
from train.cli import UsageError
from train.recipes import fashion_mnist


def test_overrides_take_the_types_of_the_fields():
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


@pytest.mark.parametrize("text", ["resnet8_an", "'resnet8_an'", '"resnet8_an"'])
def test_names_may_be_quoted_as_they_are_printed(text):
    recipe = config.override(recipes.create_recipe("digits"), [f"model.name={text}"])
    assert recipe.model.name == "resnet8_an"


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_printed_values_can_be_set(name):
    recipe = recipes.create_recipe(name)
    assert config.override(recipe, [*fields.values(recipe)]) == recipe


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
        ("data.interpolation=cubic", "data.interpolation must be one of bilinear, b"),
        ("data.shorter_side=0", "data.shorter_side must be from 1"),
        ("data.validation_fraction=1.0", "data.validation_fraction must be from"),
        ("data.mean=()", "data.mean must contain at least one number"),
        ("model.options={'a': {1, 2}}", "model.options must be plain values"),
        ("model.options={'a': 1e999}", "model.options must be plain values"),
        ("model.options={1: 2}", "must have argument names as keys"),
        ("model.weights=", "model.weights must not be empty"),
        ("model.weights=a\0b", "model.weights must not contain control characters"),
        ("data.name=folder:", "--data=folder:DIR must not be empty"),
        (f"optimizer.learning_rate={'9' * 400}", "learning_rate must be of type float"),
        (f"data.mean={'9' * 400},0", "data.mean must be of type"),
        (f"batch_size=0x{'f' * 5000}", "batch_size must be of type int"),
        (f"batch_size={'9' * 5000}", "batch_size must be of type int"),
        (f"batch_size={'-' * 100_000}1", "batch_size must be of type int"),
        (f"data.mean={'(' * 5000}", "data.mean must be of type"),
        (f"epochs={'1+' * 5000}1", "epochs must be of type float"),
        ("epochs=1j", "epochs must be of type float"),
        ("epochs=True", "epochs must be of type float"),
        ("data.mean=True", "data.mean must be of type"),
        ("data.class_names=1,2", "data.class_names must be of type"),
        ("steps=\0", "steps must be of type"),
        ("steps=1 if 2else 3", "steps must be of type"),
    ],
)
def test_invalid_overrides_are_usage_errors(assignment, words):
    with pytest.raises(UsageError, match=words):
        config.override(recipes.create_recipe("digits"), [assignment])


def names(kind, prefix=""):
    """Yields the names and types of all fields of a recipe."""
    for name, annotation in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(annotation):
            yield from names(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", annotation


FIELDS = dict(names(config.Recipe))
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=5,
)
ODD = st.sampled_from(
    [
        *("", "None", "nan", "inf", "1e999", "-0.0", "1e3", "1_0", "007", " 1", "1j"),
        *("[]", "()", "{[]:1}", "{}", "{**{}}", "'", "\\", "\0", "\n", "\udcff", "..."),
        *("-" * 100_000, "9" * 400, "9" * 5000, f"0x{'f' * 5000}", "[" * 1000),
        *(
            "~",
            "~nobody/x",
            "folder:",
            "idx:\0",
            "folder:gs://x",
            f"folder:{'x' * 300}",
        ),
        *("f'{1}'", "lambda: 1", "__import__('os')", "'\\d'", "1is 2", "{1} {2}"),
    ]
)


def written(recipe):
    return json.dumps(dataclasses.asdict(recipe), allow_nan=False)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    name=st.sampled_from(sorted(FIELDS)) | st.text(),
    text=ODD | st.text() | LITERALS.map(repr),
)
def test_any_text_gives_a_recipe_or_a_usage_error(name, text):
    try:
        recipe = config.override(recipes.create_recipe("digits"), [f"{name}={text}"])
    except UsageError as error:
        str(error)
        return
    again = config.from_dict(config.Recipe, json.loads(written(recipe)))
    assert json.loads(written(again)) == json.loads(written(recipe))


def test_every_number_of_a_recipe_has_limits():
    numbers = {
        name
        for name, annotation in FIELDS.items()
        if re.search(r"\b(int|float)\b", str(annotation))
    }
    assert numbers == {name for name, _, _ in config.LIMITS}


def test_weights_can_be_reset_to_none():
    recipe = config.override(recipes.create_recipe("digits"), ["model.weights=x"])
    assert config.override(recipe, ["model.weights=None"]).model.weights is None


def test_unknown_recipe_lists_similar_names():
    with pytest.raises(UsageError, match="like digits.*Received: 'digit'"):
        recipes.create_recipe("digit")


def test_class_names_of_a_recipe_are_those_of_its_published_weights():
    assert fashion_mnist.CLASS_NAMES == weight_sets.FASHION_MNIST


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_survives_json(name):
    recipe = recipes.create_recipe(name)
    text = json.dumps(dataclasses.asdict(recipe))
    assert config.from_dict(config.Recipe, json.loads(text)) == recipe


def test_an_and_bn_recipes_differ_in_the_network_only():
    an, bn = recipes.create_recipe("digits"), recipes.create_recipe("digits_bn")
    assert an != bn
    assert dataclasses.replace(an, model=bn.model) == bn
