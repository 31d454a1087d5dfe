"""What a network sees of its images: decided once, for training and all that follows.

Recipe, network and weights must agree on it. What was decided is in the recipe of the
run's `config.json`; evaluation and export read it there.
"""

import dataclasses
import os
import pathlib

import numpy as np

from model_zoo import preprocessing
from model_zoo.preprocessing import Preprocessing
from model_zoo.registry import model_info, split_name
from train import config
from train.cli import UsageError
from train.engine import run_directory

FIELDS = ("mean", "std", "reverse_channels")
UNKNOWN = preprocessing.SMALL_IMAGES  # mean .5, std .25


def settle(
    recipe: config.Recipe, channels: int, workdir: pathlib.Path
) -> config.Recipe:
    """The recipe of a run with numbers for `data.mean` and `data.std`.

    Where they are `None`, they and `data.reverse_channels` are, in this order: what the
    run began with; what the weights were trained with that it starts from, those of
    another run or of a tag; what `model_zoo.preprocessing` says of the network; for
    images of another number of channels than that, .5 and .25.

    Args:
        recipe: as it was written.
        channels: of the images.
        workdir: of the run, new or not.

    Raises:
        UsageError: the recipe says something else than its weights, or than a network
            that rescales images of 0 to 255 itself.
    """
    data = recipe.data
    given = {name: getattr(data, name) for name in FIELDS}
    if (data.mean is None) != (data.std is None) or (
        data.reverse_channels and data.mean is None
    ):
        raise UsageError(
            "Expected data.mean and data.std together, or None for both and no "
            f"data.reverse_channels. Received: {_assignments(given)}."
        )
    source, owner = _source(recipe.model, channels, workdir)
    own = {name: getattr(source, name) for name in FIELDS}
    if owner and len(source.mean) not in (1, channels):
        raise UsageError(
            f"Expected images of {len(source.mean)} channels for {owner}. "
            f"Received: {channels}."
        )
    if data.mean is None:
        return dataclasses.replace(recipe, data=dataclasses.replace(data, **own))
    if owner and not all(_equal(given[name], own[name]) for name in FIELDS):
        raise UsageError(
            f"The recipe contradicts {owner}. Expected {_assignments(own)}, or "
            "data.mean=None data.std=None, which stand for it. "
            f"Received: {_assignments(given)}."
        )
    return recipe


def initial_weights(model: config.Model) -> str | None:
    """The tag, file or run that training starts from; `None`: random weights."""
    _, tag = split_name(model.name)
    return model.weights or model.options.get("weights") or tag


def _source(model, channels, workdir) -> tuple[Preprocessing | config.Data, str]:
    """Who knows, and the words for it if nobody may contradict it."""
    if (workdir / "config.json").is_file():  # its settings are compared later
        return run_directory.read_facts(workdir).recipe.data, ""
    if model.weights and os.path.isdir(model.weights):
        facts = run_directory.read_facts(pathlib.Path(model.weights))
        return facts.recipe.data, f"the run {model.weights}, whose weights it takes"
    network, _ = split_name(model.name)
    weights = initial_weights(model)
    try:
        is_tag = weights in model_info(network).weights
        own = preprocessing.preprocessing(
            f"{network}.{weights}" if is_tag else network,
            channels=channels,
            include_preprocessing=model.options.get("include_preprocessing", True),
        )
    except ValueError as error:
        raise UsageError(f"Cannot build {model.name}: {error}") from error
    if is_tag:
        return own, f"the weights {network}.{weights}"
    if own.inside:
        return own, f"{network}, which rescales images of 0 to 255 itself"
    return (own if len(own.mean) in (1, channels) else UNKNOWN), ""


def _equal(a, b):
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    return len({a.size, b.size} - {1}) < 2 and np.allclose(a, b, 1e-3, 1e-6)


def _assignments(values):
    return " ".join(f"data.{name}={value}" for name, value in values.items())
