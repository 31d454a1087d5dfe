"""Recipes by name. A recipe is a function of a module here that returns a `Recipe`."""

import difflib

from train.cli import UsageError
from train.config import Recipe
from train.recipes import digits, fashion_mnist

RECIPES = {**digits.RECIPES, **fashion_mnist.RECIPES}


def create_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        UsageError: unknown name; the message lists the nearest ones.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=4, cutoff=0.4)
        expected = ", ".join(near or sorted(RECIPES))
        raise UsageError(
            f"Unknown recipe. Expected one like {expected}. Received: {name!r}."
        )
    return RECIPES[name]()
