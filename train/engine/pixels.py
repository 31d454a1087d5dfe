"""Decides, in one place, how images are normalized in training and exports.

Recipe, network and weights must agree on it. The decision is stored in the recipe of
the run's `config.json`, where evaluation and export read it.
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
    """Returns the recipe of a run with numbers for `data.mean` and `data.std`.

    If they are `None`, they and `data.reverse_channels` are the first of:

    - the values with which an existing run was started;
    - those with which its initial weights, of another run or a tag, were trained; the
      average of several, if a run for colour images starts one for grey images;
    - those of the network in `model_zoo.preprocessing`, if the images have as many
      channels;
    - .5 and .25.

    Args:
        recipe: The recipe as written.
        channels: Number of channels of the images.
        workdir: Directory of the run, new or not.

    Raises:
        UsageError: If the recipe contradicts its weights, or a network that rescales
            images of 0 to 255 itself.
        RunError: If a directory that should be a run is not one.
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
    expected = {name: getattr(source, name) for name in FIELDS}
    if owner and len(source.mean) not in (1, channels):
        raise UsageError(
            f"Expected images of {len(source.mean)} channels for {owner}. "
            f"Received: {channels}."
        )
    if data.mean is None:
        return dataclasses.replace(recipe, data=dataclasses.replace(data, **expected))
    if owner and not all(_equal(given[name], expected[name]) for name in FIELDS):
        raise UsageError(
            f"The recipe contradicts {owner}. Expected {_assignments(expected)}, or "
            "data.mean=None data.std=None, which select these. "
            f"Received: {_assignments(given)}."
        )
    return recipe


def initial_weights(model: config.Model) -> str | None:
    """Returns the tag, file or run of the initial weights; `None`: random weights."""
    _, tag = split_name(model.name)
    return model.weights or model.options.get("weights") or tag


def _source(model, channels, workdir) -> tuple[Preprocessing | config.Data, str]:
    """Returns the source of the values, and its name if the recipe must agree."""
    if (workdir / "config.json").is_file():  # its settings are compared later
        return run_directory.read_spec(workdir).recipe.data, ""
    if model.weights and os.path.isdir(model.weights):
        spec = run_directory.read_spec(pathlib.Path(model.weights))
        owner = f"the run {model.weights}, whose weights it uses"
        return _for_channels(spec.recipe.data, channels), owner
    network, _ = split_name(model.name)
    weights = initial_weights(model)
    try:
        is_tag = weights in model_info(network).weights
        of_network = preprocessing.preprocessing(
            f"{network}.{weights}" if is_tag else network,
            channels=channels,
            include_preprocessing=model.options.get("include_preprocessing", True),
        )
    except ValueError as error:
        raise UsageError(f"Cannot build {model.name}: {error}") from error
    if is_tag:
        return of_network, f"the weights {network}.{weights}"
    if of_network.inside:
        return of_network, f"{network}, which rescales images of 0 to 255 itself"
    return (of_network if len(of_network.mean) in (1, channels) else UNKNOWN), ""


def _for_channels(data, channels):
    """Returns settings with one mean and deviation, the average, for grey images."""
    if channels > 1:
        return data
    mean, std = ((float(np.mean(values)),) for values in (data.mean, data.std))
    return dataclasses.replace(data, mean=mean, std=std, reverse_channels=False)


def _equal(a, b):
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    return len({a.size, b.size} - {1}) < 2 and np.allclose(a, b, 1e-3, 1e-6)


def _assignments(values):
    return " ".join(f"data.{name}={value}" for name, value in values.items())
