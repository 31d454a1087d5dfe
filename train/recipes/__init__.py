"""Recipes by name. Each is a function in a module here that returns a `Recipe`."""

import difflib
import functools
import importlib.util
import inspect
import pathlib
import re
import runpy
import shlex
from collections.abc import Iterable

from train.cli import UsageError
from train.config import Recipe
from train.recipes import (
    digits,
    fashion_mnist,
    fine_tuning,
    imagenet,
    photos,
    small_images,
)

RECIPES = {
    **digits.RECIPES,
    **fashion_mnist.RECIPES,
    **photos.RECIPES,
    **fine_tuning.RECIPES,
    **small_images.RECIPES,
    **imagenet.RECIPES,
}
# Flags that say where the images are, by the data set.
WHERE = {
    "fashion_mnist": ("--data=idx:/usr/share/datasets/fashion-mnist",),
    "folder": ("--data=folder:DIR",),
    "imagenet2012": ("--strategy=mirrored", "--data_dir=DIR"),
}
COLUMNS = ("recipe", "network", "data", "epochs", "batch", "top-1", "multiply-adds")
WIDTH = 125  # characters of their table, where it is not printed to a terminal
TRAINING_IMAGES = {  # their number and size in pixels
    "digits": (1_299, 8),
    "fashion_mnist": (54_000, 28),
    "cifar10": (45_000, 32),
    "cifar100": (45_000, 32),
    "svhn_cropped": (65_931, 32),
    "imagenet2012": (1_281_167, 224),
}


def create_recipe(name: str) -> Recipe:
    """Returns the recipe called `name`.

    Raises:
        UsageError: If the name is unknown; the message lists the nearest ones.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=4, cutoff=0.4)
        expected = f"one like {', '.join(near)}" if near else "one that --recipes lists"
        raise UsageError(f"Unknown recipe. Expected {expected}. Received: {name!r}.")
    return RECIPES[name]()


def rows() -> list[tuple[str, ...]]:
    """Returns a row for each recipe, with the columns `COLUMNS`.

    The published top-1 accuracy is in percent. The multiply-adds are those of the whole
    training: three times those of an inference for each image.
    """
    table = []
    for name, create in RECIPES.items():
        recipe = create()
        data, top1, cost = recipe.data.name, published_top1(name), multiply_adds(recipe)
        table.append(
            (
                name,
                recipe.model.name,
                "folder:DIR" if data.startswith("folder:") else data,
                f"{recipe.epochs:g}",
                str(recipe.batch_size),
                f"{top1:g}" if top1 else "",
                f"{cost:.1e}" if cost else "",
            )
        )
    return table


def published_top1(name: str) -> float | None:
    """Returns the accuracy in percent that the authors published for a recipe."""
    parts = re.fullmatch(r"(\w+)_(\d+)e(_release)?", name)
    if not parts:
        return None
    tables, (model, epochs, release) = _of_zoo("published"), parts.groups()
    if epochs == "200" and model in tables["LONGER"]:
        return tables["LONGER"][model][0 if release else 2]
    results = {**tables["RELEASE_ACCURACY"], **tables["OTHER_POSITIONS"]}
    if not release:
        results = {**results, **tables["PAPER_ACCURACY"]}
    return results.get(model, (None,))[0]


def multiply_adds(recipe: Recipe) -> float | None:
    """Returns those of the training; `None` if network or data have unknown sizes."""
    network = recipe.model.name.rpartition("_")[0]
    counts = _of_zoo("parameter_counts")
    if recipe.data.name not in TRAINING_IMAGES or network not in counts["COUNTS"]:
        return None
    images, pixels = TRAINING_IMAGES[recipe.data.name]
    scale = (pixels / counts["COUNTS"][network][0]) ** 2
    of_inference = counts["MULTIPLY_ADDS"][network] * 1e6 * scale
    return 3 * of_inference * images * recipe.epochs


def about(name: str, flags: Iterable[str] = ()) -> str:
    """Returns source and hardware of a recipe, the text of its module, and its command.

    Args:
        name: Name of the recipe.
        flags: Further flags of the command, which replace those it has.
    """
    create = RECIPES[name]
    module = inspect.getmodule(getattr(create, "func", create))
    data, _, _ = create().data.name.partition(":")
    given = [f"--recipe={name}", *WHERE.get(data, ()), f"--workdir=runs/{name}", *flags]
    last = {
        flag if flag.startswith("--set") else flag.partition("=")[0]: flag
        for flag in given
    }
    return f"{inspect.getdoc(module)}\npython -m train {shlex.join(last.values())}"


@functools.cache
def _of_zoo(module):
    """Returns a module of the zoo that needs no Keras, which the package imports."""
    (directory,) = importlib.util.find_spec("model_zoo").submodule_search_locations
    return runpy.run_path(str(pathlib.Path(directory) / f"{module}.py"))
