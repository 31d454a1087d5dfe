"""The fields of a recipe, as `--help` shows them."""

import dataclasses
import typing

from train import config, fields, recipes


def test_every_field_of_a_recipe_is_listed_once():
    expected = set()
    for name, kind in typing.get_type_hints(config.Recipe).items():
        if dataclasses.is_dataclass(kind):
            expected |= {f"{name}.{field.name}" for field in dataclasses.fields(kind)}
        else:
            expected.add(name)
    listed = [name for name, *_ in fields.fields()]
    assert {*listed} == expected and len(listed) == len(expected)


def test_fields_have_the_first_sentence_of_their_documentation():
    described = {name: text for name, _, _, text in fields.fields()}
    assert all(text.endswith(".") for text in described.values())
    assert described["data.mean"] == described["data.std"]
    assert described["data.shift"] == (
        "Largest random shift in pixels, filled with black."
    )


def test_listing_shows_default_and_type():
    lines = fields.listing().splitlines()
    for begin in (
        "model.name=... (str): ",
        "model.options={} (dict): ",
        "data.mean=None (tuple[float, ...] | None): ",
        "optimizer.momentum=0.9 (float): ",
    ):
        assert sum(line.startswith(begin) for line in lines) == 1


def test_values_are_those_of_the_recipe():
    values = list(fields.values(recipes.create_recipe("photos")))
    assert len(values) == len(list(fields.fields()))
    for value in ("optimizer.learning_rate=0.2", "data.flip=True", "epochs=60"):
        assert value in values
