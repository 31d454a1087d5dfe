"""A run of an experiment by Model Garden's driver: checks, training, evaluation.

MODEL_DIR/params.yaml      all parameters, which define the run
MODEL_DIR/ckpt-*           checkpoints, of which the last is resumed
MODEL_DIR/metrics.csv      losses of each loop, and average precisions
MODEL_DIR/results.json     the last evaluation
MODEL_DIR/train, validation    the same for TensorBoard
"""

import copy
import json
import pathlib

import keras
import tensorflow as tf
from official.core import task_factory, train_lib
from official.modeling import performance

from train import cli
from train.cli import RunError, UsageError
from train.detection import parameters
from train.detection.progress import Progress
from train.engine import preemption, strategies
from train.engine.trainer import quiet_orbit

tf.get_logger().setLevel("ERROR")  # no warnings about what Model Garden calls


def check_data(task, mode: str) -> None:
    """Checks that the records and annotations of a task exist and fit the network.

    Raises:
        RunError: If they do not.
    """
    for name, data in (("train", task.train_data), ("eval", task.validation_data)):
        patterns = data.input_path
        patterns = patterns.split(",") if isinstance(patterns, str) else patterns
        if name in mode and not all(map(tf.io.gfile.glob, patterns)):
            raise RunError(
                f"No records at {', '.join(patterns)}. Expected those that "
                "`python -m train.detection.prepare` writes."
            )
    if "eval" not in mode or not task.annotation_file:
        return
    try:
        coco = json.loads(pathlib.Path(task.annotation_file).read_bytes())
        categories = {category["id"] for category in coco["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{task.annotation_file} is damaged: {error!r}.") from error
    if categories != {*range(1, task.model.num_classes)}:
        raise RunError(
            f"{task.annotation_file} does not fit task.model.num_classes="
            f"{task.model.num_classes}. Expected categories 1 to "
            f"{task.model.num_classes - 1}. Received: {len(categories)} categories."
        )


def checkpoint_step(path: str | None) -> int:
    """Returns the step of a checkpoint, 0 for `None`."""
    return int(path.rpartition("-")[2]) if path else 0


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
    last = tf.train.latest_checkpoint(model_dir)
    if mode == "eval" and last is None:
        raise RunError(f"{model_dir} has no checkpoint. Expected one to evaluate.")
    if last:
        parameters.require_same(params, model_dir)
    is_chief, step = strategies.is_chief(strategy), checkpoint_step(last)
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
    progress = Progress(params, model_dir, step, is_chief)
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
    except (ValueError, UsageError) as error:
        reason = str(error).split("\n  In call to configurable")[0]  # added by gin
        raise UsageError(f"Cannot build the experiment. {reason}") from error
    if is_chief and not last:
        parameters.write(params, model_dir)
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
            "A file of records is damaged. Expected what `python -m "
            f"train.detection.prepare` writes. Received: {error.message}"
        ) from error
