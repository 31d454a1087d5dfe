"""The parameters of a run: an experiment of Model Garden with some replaced."""

import math
import pathlib

import tensorflow as tf
import yaml
from official.core import config_definitions as cfg
from official.core import exp_factory, train_utils

from train.cli import RunError, UsageError
from train.detection import experiments  # noqa: F401  registers the experiments
from train.detection.rows import SCENES
from train.engine import run_directory

# What may be null although it is not in the experiment.
NULLABLE = ("annotation_file", "mask_head", "mask_sampler", "mask_roi_aligner", "type")
POSITIVE = (
    *("train_steps", "steps_per_loop", "summary_interval", "checkpoint_interval"),
    *("validation_interval", "global_batch_size", "num_classes"),
)
DTYPES = ("float32", "bfloat16", "float16")
LEAST_STD = 1e-3  # Keras' networks that rescale images themselves have 1 / 255
STRIDE = 32  # of the last map of the backbone
LARGEST_SEED = 2**31 - 1
# Raised by Model Garden where a parameter is wrong.
WRONG = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


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
        UsageError: If a parameter does not exist or has a wrong value, or files or text
            are not YAML.
    """
    options = train_utils.ParseConfigOptions(
        experiment=experiment,
        config_file=config_files,
        tpu=None,
        params_override=override or "",
    )
    try:
        params = train_utils.ExperimentParser(options).parse()
        _require_kinds(
            exp_factory.get_exp_config(experiment).as_dict(), params.as_dict()
        )
        if params.task.train_data.seed is None:
            params.task.train_data.seed = seed
        _require_usable(params)
        params.validate()
    except (*WRONG, yaml.YAMLError, tf.errors.OpError) as error:
        reason = getattr(error, "message", " ".join(map(str, error.args)))
        reason = reason.partition(" To extend the existing keys")[0]  # for programmers
        raise UsageError(
            "Expected parameters of the experiment in --config_file and "
            f"--params_override, as YAML. Received: {reason}"
        ) from error
    return params


def of_run(model_dir: pathlib.Path) -> cfg.ExperimentConfig:
    """Returns the parameters of a run, from its params.yaml.

    Raises:
        RunError: If there is no such file, or it is damaged.
    """
    try:
        return parse(SCENES, [str(model_dir / "params.yaml")], None)
    except UsageError as error:
        reason = str(error).partition("Received: ")[2]
        raise RunError(
            f"{model_dir}/params.yaml is damaged. Expected the parameters of a run. "
            f"Received: {reason}"
        ) from error


def _require_kinds(expected, received, name=""):
    """Checks that parameters are of the kinds that the experiment has."""
    for key, value in expected.items():
        # Of alternatives such as optimizers, only the chosen one is there.
        if key not in received or value is None:
            continue
        other, path = received[key], f"{name}{key}"
        if other is None and key in NULLABLE:
            continue
        if key == "input_path":
            patterns = other if isinstance(other, (list, tuple)) else [other]
            if not patterns or not all(isinstance(each, str) for each in patterns):
                raise TypeError(f"{path}={other}, expected paths")
            continue
        _require_kind(value, other, path)
        if isinstance(value, dict):
            _require_kinds(value, other, f"{path}.")
        if isinstance(value, (list, tuple)) and value:
            for each in other:
                _require_kind(value[0], each, path)


def _require_kind(value, other, path):
    kinds = (int, float) if type(value) is float else type(value)
    kinds = (list, tuple) if kinds in (list, tuple) else kinds
    is_bool = isinstance(value, bool), isinstance(other, bool)
    if not isinstance(other, kinds) or is_bool[0] != is_bool[1]:
        raise TypeError(f"{path}={other}, expected {type(value).__name__}")
    if isinstance(value, (int, float)) and not is_bool[0]:
        least = 1 if path.rpartition(".")[2] in POSITIVE else 0
        if not math.isfinite(other) or (value >= 0 and other < least):
            raise ValueError(f"{path}={other}, expected a number from {least}")


def _require_usable(params):
    """Checks values that Model Garden would not refuse, or not in words."""
    task, runtime = params.task, params.runtime
    size, seed = list(task.model.input_size), task.train_data.seed
    dtypes = {"runtime.mixed_precision_dtype": runtime.mixed_precision_dtype}
    for name in ("train_data", "validation_data"):
        dtypes[f"task.{name}.dtype"] = getattr(task, name).dtype
    is_size = len(size) == 3 and size[2] == 3 and 0 not in size
    for is_right, received, expected in (
        (
            is_size and size[0] % STRIDE == size[1] % STRIDE == 0,
            f"task.model.input_size={size}",
            f"[height, width, 3] in multiples of {STRIDE}",
        ),
        *(
            (
                len(values) in (0, 1, 3) and all(_is_number(v, least) for v in values),
                f"task.model.backbone.zoo.{name}={[*values]}",
                f"one or three numbers, {words}",
            )
            for name, values, least, words in _statistics(task.model.backbone)
        ),
        (
            type(seed) is int and 0 <= seed <= LARGEST_SEED,
            f"task.train_data.seed={seed}",
            f"an int from 0 to {LARGEST_SEED}",
        ),
        (
            runtime.distribution_strategy == "one_device",
            f"runtime.distribution_strategy={runtime.distribution_strategy}",
            "--strategy instead",
        ),
        *(
            (dtype in DTYPES, f"{name}={dtype}", f"one of {', '.join(DTYPES)}")
            for name, dtype in dtypes.items()
        ),
    ):
        if not is_right:
            raise ValueError(f"{received}, expected {expected}")


def _statistics(backbone):
    """Name, values and lower bound of a backbone's statistics of pixels."""
    if backbone.type == "zoo":
        yield "mean", backbone.zoo.mean, 0, "from 0 to 1"
        yield "std", backbone.zoo.std, LEAST_STD, f"from {LEAST_STD} to 1"


def _is_number(value, least):
    is_kind = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_kind and least <= value <= 1


def require_same(params: cfg.ExperimentConfig, model_dir: pathlib.Path) -> None:
    """Compares parameters with those of a run in params.yaml; devices may differ.

    Raises:
        UsageError: If others differ.
        RunError: If there is no such file, or it is damaged.
    """
    # Fields that the run's version did not have get their defaults.
    stored, given = (
        yaml.safe_load(yaml.safe_dump(each.as_dict()))
        for each in (of_run(model_dir), params)
    )
    differences = [
        f"{name} {old} -> {new}"
        for name, old, new in run_directory.differences(stored, given)
        if not name.startswith("runtime.")
    ]
    if differences:
        raise UsageError(
            f"{model_dir} is the directory of another run. Expected its parameters, or "
            f"another --model_dir. Received: {', '.join(differences[:4])}."
        )
