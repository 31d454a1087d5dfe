"""A run of an experiment by Model Garden's driver: checks, training, evaluation.

MODEL_DIR/params.yaml      all parameters, which define the run
MODEL_DIR/ckpt-*           checkpoints, of which the last is resumed
MODEL_DIR/metrics.csv      losses of each loop, and average precisions
MODEL_DIR/results.json     the last evaluation
MODEL_DIR/train, validation    the same for TensorBoard
"""

import copy
import itertools
import json
import pathlib

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from official.core import task_factory, train_lib, train_utils
from official.modeling import performance

from train import cli
from train.cli import RunError, UsageError
from train.detection import parameters
from train.detection.progress import Progress
from train.engine import preemption, strategies
from train.engine.trainer import quiet_orbit

tf.get_logger().setLevel("ERROR")  # no warnings about what Model Garden calls
EXPECTED = "Expected what `python -m train.detection.prepare` writes."


def check_data(task, mode: str) -> None:
    """Checks that the records and annotations of a task exist and fit the network.

    Raises:
        RunError: If they do not.
    """
    records = {}
    for name, data in (("train", task.train_data), ("eval", task.validation_data)):
        records[name] = files_of(data)
        if name in mode and not all(records[name].values()):
            raise RunError(f"No records at {', '.join(records[name])}. {EXPECTED}")
    if "eval" not in mode or not task.annotation_file:
        return
    file, classes = pathlib.Path(task.annotation_file), task.model.num_classes
    if not file.is_file():
        raise RunError(f"No annotations at {file}. {EXPECTED}")
    try:
        coco = json.loads(file.read_bytes())
        categories = {category["id"] for category in coco["categories"]}
        images = {str(image["id"]) for image in coco["images"]}
        images_of_objects = {str(each["image_id"]) for each in coco["annotations"]}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} is damaged: {error!r}. {EXPECTED}") from error
    if categories != {*range(1, classes)}:
        raise RunError(
            f"{file} does not fit task.model.num_classes={classes}. Expected "
            f"{classes - 1} categories, numbered from 1. Received: {len(categories)}."
        )
    paths = itertools.chain(*records["eval"].values())
    first = {first_images(path, 1)[0][0] for path in paths}
    if not first | images_of_objects <= images:
        raise RunError(
            f"{file} does not fit the records for the evaluation. Expected all images "
            f"of the records. Received: {len(images)} others. {EXPECTED}"
        )


def files_of(data) -> dict[str, list[str]]:
    """Returns the files of records for each pattern in a configuration of data."""
    patterns = data.input_path
    patterns = patterns.split(",") if isinstance(patterns, str) else patterns
    return {pattern: tf.io.gfile.glob(pattern) for pattern in patterns}


def first_images(path: str, count: int) -> list[tuple[str, bytes]]:
    """Returns id and encoded image of the first examples in a file of records.

    Raises:
        RunError: If it is damaged, or has no images.
    """
    found = []
    try:
        for record in tf.data.TFRecordDataset(path).take(count).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            id_, encoded = (
                features[f"image/{name}"].bytes_list.value[0]
                for name in ("source_id", "encoded")
            )
            found.append((id_.decode(), encoded))
    except (tf.errors.OpError, DecodeError, IndexError, ValueError) as error:
        raise RunError(f"{path} is damaged. {EXPECTED}") from error
    if not found:
        raise RunError(f"{path} has no images. {EXPECTED}")
    return found


def last_checkpoint(model_dir: pathlib.Path) -> tuple[str | None, int]:
    """Returns the path of the last checkpoint, and its step; `None` and 0 without one.

    Raises:
        RunError: If there are checkpoints, but none can be read.
    """
    try:
        path = tf.train.latest_checkpoint(model_dir)
    except (tf.errors.OpError, UnicodeDecodeError):
        path = None
    step = (path or "").rpartition("-")[2]
    if step.isdecimal():
        return path, int(step)
    if [*model_dir.glob("ckpt-*")] or (model_dir / "checkpoint").exists():
        raise RunError(
            f"The checkpoints in {model_dir} are damaged. Expected a file `checkpoint` "
            "that names one of them, with its index and data. To start again, delete "
            "the directory."
        )
    return None, 0


def run(params, mode: str, strategy, model_dir: pathlib.Path) -> None:
    """Trains, evaluates, or both; resumes from the last checkpoint.

    Args:
        params: What `parameters.parse` returns.
        mode: `"train"`, `"eval"` or `"train_and_eval"`.
        strategy: A `tf.distribute.Strategy`.
        model_dir: Directory of the run.

    Raises:
        UsageError: If the parameters are wrong, or those of another run in the
            directory.
        RunError: If data is missing or damaged, or the loss is no longer finite.
        Preempted: After SIGTERM; everything is saved.
    """
    check_data(params.task, mode)
    last, step = last_checkpoint(model_dir)
    if mode == "eval" and last is None:
        raise RunError(f"{model_dir} has no checkpoint. Expected one to evaluate.")
    if last:
        parameters.require_same(params, model_dir)
    is_chief = strategies.is_chief(strategy)
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
    progress = Progress(params.trainer.train_steps, model_dir, step, is_chief)
    keras.utils.set_random_seed(params.task.train_data.seed)
    seeded = copy.deepcopy(params)
    seeded.task.train_data.seed += step  # a resumed run sees images in another order
    stop_signal = preemption.STOP_SIGNAL
    stop_signal.belongs_to(model_dir, strategy)
    try:
        with quiet_orbit(), strategy.scope():
            runner = train_lib.OrbitExperimentRunner(
                strategy,
                task_factory.get_task(seeded.task, logging_dir=str(model_dir)),
                mode,
                seeded,
                str(model_dir),
                train_actions=[progress.trained, lambda _: stop_signal.check()],
                eval_actions=[progress.evaluated],
            )
            if last and not is_chief:  # Model Garden restores only the chief's
                runner.controller.restore_checkpoint(last)
    except (IndexError, tf.errors.OpError) as error:  # too few bytes, or none
        if last:
            raise RunError(
                f"{last} is damaged, or of another network: {error}"
            ) from error
        raise UsageError(f"Cannot build the experiment. {error}") from error
    except (ValueError, UsageError) as error:
        reason = str(error).split("\n  In call to configurable")[0]  # added by gin
        raise UsageError(f"Cannot build the experiment. {reason}") from error
    if is_chief and not last:
        train_utils.serialize_config(params, str(model_dir))
    progress.begin(runner.trainer)
    settings, controller = params.trainer, runner.controller
    try:
        with stop_signal.deferred(), quiet_orbit(), strategy.scope():
            try:
                if mode == "train":
                    controller.train(settings.train_steps)
                elif mode == "eval" or step >= settings.train_steps:
                    controller.evaluate(settings.validation_steps)
                else:
                    controller.train_and_evaluate(
                        settings.train_steps,
                        settings.validation_steps,
                        settings.validation_interval,
                    )
            except cli.Preempted:
                controller.save_checkpoint()
                raise
    except tf.errors.DataLossError as error:
        raise RunError(
            f"A file of records is damaged. {EXPECTED} Received: {error.message}"
        ) from error
