"""The fields of a recipe and what they do, for `python -m train --help`."""

import dataclasses
import operator
import re
import typing
from collections.abc import Iterator

import docstring_parser

from train import config


def fields(kind: type = config.Recipe, prefix: str = "") -> Iterator[tuple]:
    """Yields name, type, default and description of each field of a recipe.

    The default is `dataclasses.MISSING` if there is none. The description is the first
    sentence about the field in the docstring of its class.
    """
    descriptions = {
        name: re.split(r"(?<=\.)\s", param.description)[0].replace("\n", " ")
        for param in docstring_parser.parse(kind.__doc__).params
        for name in param.arg_name.split(", ")
    }
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        expected, default = types[field.name], field.default
        if dataclasses.is_dataclass(expected):
            yield from fields(expected, f"{prefix}{field.name}.")
            continue
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield (prefix + field.name, expected, default, descriptions[field.name])


def flat(recipe: config.Recipe) -> dict:
    """Returns the values of a recipe by the names of their fields."""
    return {name: operator.attrgetter(name)(recipe) for name, *_ in fields()}


def values(recipe: config.Recipe) -> Iterator[str]:
    """Yields FIELD=VALUE for each field of a recipe."""
    for name, value in flat(recipe).items():
        yield f"{name}={value!r}"


def listing() -> str:
    """Returns a line for each field: FIELD=DEFAULT (type): what it is."""
    lines = []
    for name, expected, default, description in fields():
        given = "..." if default is dataclasses.MISSING else repr(default)
        lines.append(f"{name}={given} ({config.type_name(expected)}): {description}")
    return "\n".join(lines)
