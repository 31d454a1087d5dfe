"""Recipes by name. Each is a function in a module here that returns a `Recipe`."""

import difflib

from train.cli import UsageError
from train.config import Recipe
from train.recipes import digits, fashion_mnist, photos

RECIPES = {**digits.RECIPES, **fashion_mnist.RECIPES, **photos.RECIPES}
COLUMNS = ("recipe", "network", "data", "epochs", "batch")


def create_recipe(name: str) -> Recipe:
    """Returns the recipe called `name`.

    Raises:
        UsageError: If the name is unknown; the message lists the nearest ones.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=4, cutoff=0.4)
        expected = ", ".join(near or sorted(RECIPES))
        raise UsageError(
            f"Unknown recipe. Expected one like {expected}. Received: {name!r}."
        )
    return RECIPES[name]()


def rows() -> list[tuple[str, ...]]:
    """Returns a row for each recipe, with the columns `COLUMNS`."""
    table = []
    for name, create in RECIPES.items():
        recipe = create()
        data = recipe.data.name
        data = "folder:DIR" if data.startswith("folder:") else data
        numbers = f"{recipe.epochs:g}", str(recipe.batch_size)
        table.append((name, recipe.model.name, data, *numbers))
    return table
