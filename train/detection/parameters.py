"""The parameters of a run: an experiment of Model Garden with some replaced."""

import pathlib

import tensorflow as tf
import yaml
from official.core import config_definitions as cfg
from official.core import exp_factory, train_utils

from train.cli import RunError, UsageError
from train.detection import experiments  # noqa: F401  registers the experiments

# Raised by Model Garden where a parameter is wrong.
WRONG = (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError)


def parse(
    experiment: str, config_files: list[str], override: str | None, seed: int = 0
) -> cfg.ExperimentConfig:
    """Returns the parameters of an experiment, of which files and text replace some.

    Args:
        experiment: Its name.
        config_files: Paths of YAML files.
        override: CSV, YAML or the path of a YAML file. Replaces the files' values.
        seed: Seed of initialization and data, unless they set `task.train_data.seed`.

    Raises:
        UsageError: If a parameter does not exist, or files or text are not YAML.
    """
    options = train_utils.ParseConfigOptions(
        experiment=experiment,
        config_file=config_files,
        tpu=None,
        params_override=override or "",
    )
    try:
        params = train_utils.parse_configuration(options, lock_return=False)
        _require_kinds(
            exp_factory.get_exp_config(experiment).as_dict(), params.as_dict()
        )
    except (*WRONG, tf.errors.OpError) as error:
        reason = getattr(error, "message", " ".join(map(str, error.args)))
        raise UsageError(
            "Expected parameters of the experiment in --config_file and "
            f"--params_override, as YAML. Received: {reason}"
        ) from error
    if params.task.train_data.seed is None:
        params.task.train_data.seed = seed
    return params


def _require_kinds(expected, received, name=""):
    """Checks that parameters are of the kinds that the experiment has."""
    for key, value in expected.items():
        # Of alternatives such as optimizers, only the chosen one is there.
        other, path = received.get(key), f"{name}{key}"
        kinds = (int, float) if type(value) is float else type(value)
        if None in (value, other) or key in ("input_path", "tfds_name"):
            continue
        if not isinstance(other, kinds) or isinstance(value, bool) != isinstance(
            other, bool
        ):
            raise TypeError(f"{path}={other}, expected {type(value).__name__}")
        if isinstance(value, dict):
            _require_kinds(value, other, f"{path}.")


def write(params: cfg.ExperimentConfig, model_dir: pathlib.Path) -> None:
    """Writes params.yaml."""
    train_utils.serialize_config(params, str(model_dir))


def require_same(params: cfg.ExperimentConfig, model_dir: pathlib.Path) -> None:
    """Compares parameters with those of a run in params.yaml; devices may differ.

    Raises:
        UsageError: If others differ.
        RunError: If there is no such file, or it is damaged.
    """
    path = model_dir / "params.yaml"
    try:
        stored = dict(_flat(yaml.safe_load(path.read_text())))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        raise RunError(
            f"{model_dir} has checkpoints, but no readable params.yaml: {error}."
        ) from error
    given = dict(_flat(yaml.safe_load(yaml.safe_dump(params.as_dict()))))
    differences = [
        f"{key} {stored.get(key)} -> {given.get(key)}"
        for key in sorted({*stored, *given})
        if stored.get(key) != given.get(key) and not key.startswith("runtime.")
    ]
    if differences:
        raise UsageError(
            f"{model_dir} is the directory of another run. Expected its parameters, or "
            f"another --model_dir. Received: {', '.join(differences[:4])}."
        )


def _flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
