"""Builds the network of a run for its data, and loads its best or last weights."""

import contextlib
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

import keras
import tensorflow as tf

import model_zoo
from an_keras import freeze_normalization
from an_keras.inference import freeze_all_but_normalization
from train.cli import RunError, UsageError
from train.engine import checkpoint, optimizers, run_directory

NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")


def create_model(
    spec: run_directory.RunSpec, weights: str | None = None
) -> keras.Model:
    """Creates the network of a run, which returns logits.

    Args:
        spec: The spec of the run.
        weights: Tag, file or run as in `config.Model`. `None` selects random weights.

    Raises:
        UsageError: If the zoo has no such network, or not with these options or
            weights.
        RunError: If it does not fit into memory.
    """
    settings, classes = spec.recipe.model, len(spec.class_names)
    if weights and os.path.isdir(weights):
        with best_weights(pathlib.Path(weights)) as file:
            try:
                return create_model(spec, file)
            except UsageError as error:
                raise UsageError(str(error).replace(file, weights)) from error
    options = {**settings.options, **({"weights": weights} if weights else {})}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(spec.recipe.precision)
    try:
        with building(settings.name):
            model = model_zoo.create_model(
                settings.name,
                input_shape=spec.shape,
                classes=classes,
                classifier_activation=None,
                **options,
            )
    finally:
        keras.config.set_dtype_policy(before)
    require_name_for_graphs(model)
    if model.output_shape != (None, classes):
        raise UsageError(
            f"{settings.name} with options {settings.options} is not a classifier. "
            f"Expected outputs of shape (None, {classes}). "
            f"Received: {model.output_shape}."
        )
    return model


@contextlib.contextmanager
def building(name: str) -> Iterator[None]:
    """Context that turns errors of building a network into those of a command.

    Raises:
        UsageError: If the zoo has no such network, or not with these arguments.
        RunError: If it does not fit into memory.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"Cannot build {name}: {error}") from error
    except (MemoryError, tf.errors.OpError) as error:
        reason = getattr(error, "message", error)
        raise RunError(f"Cannot build {name}: {reason}") from error


def require_name_for_graphs(model: keras.Model) -> None:
    """Checks that TensorFlow accepts the name of a network in its graphs.

    Raises:
        UsageError: If it does not.
    """
    if not NAME.fullmatch(model.name):
        raise UsageError(
            "Expected a name of letters, digits and _ . - for the network. "
            f"Received: {model.name!r}."
        )


def head(model: keras.Model) -> keras.Layer:
    """Returns the classifier, the last layer with weights."""
    return [layer for layer in model.layers if layer.weights][-1]


def freeze(model: keras.Model, trained: str) -> None:
    """Freezes what the recipe field `model.trained` leaves out.

    Raises:
        UsageError: If the network has no norm.
    """
    if trained == "all":
        return
    try:
        if trained == "norms":
            freeze_all_but_normalization(model)
            head(model).trainable = True
        else:
            freeze_normalization(model)
    except ValueError as error:
        raise UsageError(
            f"Recipe field model.trained={trained} needs a network with norms. {error}"
        ) from error


def load_best(workdir: pathlib.Path) -> tuple[keras.Model, run_directory.RunSpec, int]:
    """Returns a run's network with its best weights, the run's spec and their step.

    Raises:
        RunError: If there is no such run, or it has no checkpoint of this network.
    """
    spec = run_directory.read_spec(workdir)
    path, step = checkpoint.best_checkpoint(workdir)
    model = create_model(spec)
    checkpoint.restore_model(path, model)
    return model, spec, step


@contextlib.contextmanager
def best_weights(workdir: pathlib.Path) -> Iterator[str]:
    """Context of a temporary `.weights.h5` file with a run's best weights.

    Raises:
        RunError: As `load_best`.
    """
    model, _, _ = load_best(workdir)
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "best.weights.h5")
        model.save_weights(file)
        yield file


def load_last(
    workdir: pathlib.Path, averaged: bool
) -> tuple[keras.Model, run_directory.RunSpec, int]:
    """Returns a run's network with its last or averaged weights, its spec and the step.

    Raises:
        UsageError: If the run keeps no averages.
        RunError: If there is no such run, or it has no checkpoint of this network.
    """
    spec = run_directory.read_spec(workdir)
    settings = spec.recipe.optimizer
    if averaged and not settings.average:
        raise UsageError(
            f"{workdir} keeps no averages. Expected a run with optimizer.average above "
            "0. Received: 0."
        )
    model, state = create_model(spec), checkpoint.new_state(spec.identity)
    freeze(model, spec.recipe.model.trained)
    schedule = optimizers.create_schedule(settings, 1, 1.0, 1)  # not trained here
    optimizer = optimizers.create_optimizer(spec.recipe, schedule, model)
    if not checkpoint.Checkpoints(workdir, model, optimizer, state).restore_last():
        raise RunError(
            f"{workdir} holds no checkpoint. Expected a run that has saved one."
        )
    if averaged:
        optimizers.assign_averages(optimizer, model.trainable_variables)
    return model, spec, int(state["step"].numpy())


def trainable_parameters(model: keras.Model) -> int:
    """Returns the number of trainable parameters, which exclude moving statistics."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
