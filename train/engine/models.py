"""The network of a run: built for its data, and with its best or last weights."""

import math
import os
import pathlib
import re
import tempfile

import keras
import tensorflow as tf

import model_zoo
from train.cli import RunError, UsageError
from train.engine import checkpoint, optimizers, run_directory

NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")


def create_model(facts: run_directory.Facts, weights: str | None = None) -> keras.Model:
    """The network of a run; it returns logits.

    Args:
        facts: of the run.
        weights: tag, file or run as in `config.Model`; `None`: random weights.

    Raises:
        UsageError: the zoo has no such network, or not with these options or weights.
        RunError: it does not fit into memory.
    """
    settings, classes = facts.recipe.model, len(facts.class_names)
    if weights and os.path.isdir(weights):
        source, _, _ = load_best(pathlib.Path(weights))
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "best.weights.h5")
            source.save_weights(file)
            try:
                return create_model(facts, file)
            except UsageError as error:
                raise UsageError(str(error).replace(file, weights)) from error
    options = {**settings.options, **({"weights": weights} if weights else {})}
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(facts.recipe.precision)
    try:
        model = model_zoo.create_model(
            settings.name,
            input_shape=facts.shape,
            classes=classes,
            classifier_activation=None,
            **options,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"Cannot build {settings.name}: {error}") from error
    except (MemoryError, tf.errors.OpError) as error:
        reason = getattr(error, "message", error)
        raise RunError(f"Cannot build {settings.name}: {reason}") from error
    finally:
        keras.config.set_dtype_policy(before)
    require_name_for_graphs(model)
    if model.output_shape != (None, classes):
        raise UsageError(
            f"{settings.name} with options {settings.options} is no classifier. "
            f"Expected outputs of shape (None, {classes}). "
            f"Received: {model.output_shape}."
        )
    return model


def require_name_for_graphs(model: keras.Model) -> None:
    """That TensorFlow takes the name of a network into its graphs.

    Raises:
        UsageError: it does not.
    """
    if not NAME.fullmatch(model.name):
        raise UsageError(
            "Expected a name of letters, digits and _ . - for the network. "
            f"Received: {model.name!r}."
        )


def load_best(workdir: pathlib.Path) -> tuple[keras.Model, run_directory.Facts, int]:
    """The network of a run with its best weights, the run's facts, and their step.

    Raises:
        RunError: there is no such run, or it has no checkpoint of this network.
    """
    facts = run_directory.read_facts(workdir)
    path, step = checkpoint.best_checkpoint(workdir)
    model = create_model(facts)
    checkpoint.restore_model(path, model)
    return model, facts, step


def load_last(
    workdir: pathlib.Path, averaged: bool
) -> tuple[keras.Model, run_directory.Facts, int]:
    """The network of a run with its last weights or their averages, and their step.

    Raises:
        UsageError: the run keeps no averages.
        RunError: there is no such run, or it has no checkpoint of this network.
    """
    facts = run_directory.read_facts(workdir)
    settings = facts.recipe.optimizer
    if averaged and not settings.average:
        raise UsageError(
            f"{workdir} keeps no averages. Expected a run with optimizer.average above "
            "0. Received: 0."
        )
    model, state = create_model(facts), checkpoint.new_state(facts.identity)
    schedule = optimizers.create_schedule(settings, 1, 1.0, 1)  # it is not trained
    optimizer = optimizers.create_optimizer(facts.recipe, schedule, model)
    if not checkpoint.Checkpoints(workdir, model, optimizer, state).restore_last():
        raise RunError(f"{workdir} holds no checkpoint. Expected a run that has begun.")
    if averaged:
        own = getattr(optimizer, "inner_optimizer", optimizer)
        for variable, average in zip(
            model.trainable_variables, own.averages, strict=True
        ):
            variable.assign(average)
    return model, facts, int(state["step"].numpy())


def trainable_parameters(model: keras.Model) -> int:
    """How many numbers training adjusts; moving statistics are none of them."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
