"""The loop of a run: trains, evaluates and saves, then tests the best weights once."""

import itertools
import os
import platform

import keras
import orbit
import tensorflow as tf

from an_keras.inference import attentive_layers, collect_attention
from train import cli
from train.engine import (
    checkpoint,
    checkpoint_files,
    metrics,
    optimizers,
    progress,
    run_directory,
    strategies,
)
from train.engine.run import Run
from train.engine.trainer import Trainer, quiet_orbit
from train.input import pipeline

ATTENTION_IMAGES = 64
# Raised during training by an image file that is missing, truncated or not an image.
UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
)


def train(run: Run) -> None:
    """Trains to the last step; saves the last checkpoints and the best one.

    Raises:
        RunError: If the loss is no longer finite.
        Preempted: If the process was asked to stop (SIGTERM). Everything is saved.
    """
    if run.is_chief:
        print(run.describe(), flush=True)
    else:
        number, workers = strategies.worker(run.strategy)
        print(f"worker   {number} of {workers}; the first one reports", flush=True)
    if run.step == run.steps and run.evaluated == run.steps:
        return
    trainer = Trainer(
        run.strategy,
        run.model,
        run.optimizer,
        run.schedule,
        run.state["step"],
        run.data,
        run.recipe,
        run.steps,
    )
    validator = run.evaluator("validation")
    metrics_file = progress.MetricsFile(
        run.own_file("metrics.csv"), run.step, run.evaluated, run.steps_per_epoch
    )
    shown = progress.Progress(
        run.step,
        run.steps,
        run.recipe.batch_size,
        run.steps_per_epoch,
        quiet=not run.is_chief,
    )

    def after_loop(output):
        output = {name: float(value) for name, value in output.items()}
        metrics.require_finite(output, shown.step + 1, run.step)
        optimizers.require_scale(run.optimizer, shown.step + 1, run.step)
        metrics_file.append(run.step, "train", output)
        shown.report(run.step, output["loss"], output["top1"])
        run.stop_signal.check()

    controller = orbit.Controller(
        strategy=run.strategy,
        trainer=trainer,
        evaluator=validator,
        global_step=run.state["step"],
        steps_per_loop=run.steps_per_loop,
        summary_dir=run.own_file("train"),
        summary_interval=run.steps_per_loop,
        eval_summary_dir=run.own_file("validation"),
        train_actions=[after_loop],
    )
    if run.step < run.steps:
        shown.write("compiling the first step, which can take a minute")
    try:
        with run.stop_signal.deferred():
            try:
                _train_and_evaluate(run, controller, validator, metrics_file, shown)
            except cli.Preempted:
                run.checkpoints.save()
                raise
    except UNREADABLE as error:
        raise cli.RunError(
            f"Training stopped after step {run.step}. Expected readable images of "
            f"{run.recipe.data.name}. Received: {error.message.splitlines()[0]}"
        ) from error
    finally:
        shown.close()
    run.images_per_second = shown.images_per_second
    if run.is_chief and run.images_per_second:
        print(f"trained at {run.images_per_second:.0f} images/s")
    digest = run.checkpoints.digest()
    print(f"state    step {run.step}  sha256 {digest}", flush=True)
    digests = strategies.gather(run.strategy, checkpoint_files.short(digest))
    if len({*digests}) > 1:
        raise cli.RunError(
            f"The workers differ after step {run.step}. Expected equal weights. "
            f"Received digests {', '.join(f'{each:x}' for each in digests)}."
        )


def _train_and_evaluate(run, controller, validator, metrics_file, shown):
    for target in _remaining_evaluations(run):
        with quiet_orbit():
            controller.train(target, checkpoint_at_completion=False)
        with run.averaged():
            with quiet_orbit():
                results = controller.evaluate(validator.steps)
            results = {k: float(v) for k, v in results.items()}
            is_best = _record(run, results, metrics_file)
            if is_best:
                run.checkpoints.save(best=True)
            _record_attention(run, controller)
        run.checkpoints.save()
        shown.write(
            f"step {run.step}/{run.steps}  validation loss "
            f"{results['loss']:.4f}  accuracy {results['top1']:.4f}"
            f"{'  (best)' if is_best else ''}"
        )
        shown.resume_clock()
        run.stop_signal.check()


def _remaining_evaluations(run):
    """Returns the remaining steps at which the validation images are evaluated."""
    loop = run.steps_per_loop
    loops = round(run.recipe.evaluate_every * run.steps_per_epoch / loop)
    interval = max(loops, 1) * loop
    return steps_to_evaluate_at(interval, run.steps, run.step, run.evaluated)


def _record(run, results, metrics_file):
    """Records validation results and returns whether they are the best so far."""
    metrics.require_finite(results, run.evaluated + 1, run.step)
    metrics_file.append(run.step, "validation", results)
    run.state["evaluated"].assign(run.step)
    is_best = results["top1"] >= float(run.state["best_top1"].numpy())
    if is_best:
        run.state["best_top1"].assign(results["top1"])
    return is_best


def _record_attention(run, controller):
    """Writes histograms of each layer's attention for a few validation images."""
    if not run.is_chief or not attentive_layers(run.model):
        return
    writer = controller.eval_summary_manager.summary_writer()
    batches = pipeline.evaluation_batches(run.data, "validation", ATTENTION_IMAGES)
    images, _, weights = next(iter(batches))
    images = images[weights > 0]
    with writer.as_default(step=run.step):
        for path, attention in collect_attention(run.model, images).items():
            tf.summary.histogram(f"attention/{path}", attention)
    controller.eval_summary_manager.flush()


def test(run: Run) -> dict:
    """Evaluates the best weights on the test images, once.

    Returns:
        The contents of results.json.

    Raises:
        RunError: If the best weights are lost, or results.json is of other weights.
        Preempted: If the process was asked to stop (SIGTERM).
    """
    with run.stop_signal.deferred():
        results = _test(run)
    if run.is_chief:
        top5 = f"  top-5 {results['top5']:.4f}" if "top5" in results else ""
        print(
            f"test     top-1 {results['top1']:.4f}{top5}  "
            f"loss {results['loss']:.4f}  ({results['images']} images, best "
            f"checkpoint: step {results['step']})",
            flush=True,
        )
        print(f"curves   tensorboard --logdir {run.workdir}", flush=True)
    return results


def _test(run):
    best, step = checkpoint.best_checkpoint(run.workdir)
    with run.strategy.scope():
        checkpoint.restore_model(best, run.model)
    sha256 = checkpoint.network_digest(run.model)
    path = run.workdir / "results.json"
    if strategies.of_chief(run.strategy, path.exists()):
        return run_directory.read_results(run.workdir, sha256=sha256, step=step)
    data = run.data.splits
    results = {
        "model": run.recipe.model.name,
        "data": run.recipe.data.name,
        "step": step,
        "sha256": sha256,
        "steps": run.steps,
        "batch_size": run.recipe.batch_size,
        "images": run.spec.images["test"],
        "are_validation_images": data["test"] is data["validation"],
        "parameters": run.parameters,
        **run.evaluator("test").run(),
        "images_per_second": run.images_per_second,
        "device": f"{os.cpu_count()} x {platform.machine()}",
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
    if run.is_chief:
        run_directory.write_json(path, results)
    return results


def steps_to_evaluate_at(interval: int, steps: int, step: int, evaluated: int):
    """Returns the multiples of `interval`, and `steps`, that are not evaluated yet."""
    begin = max(step, evaluated + 1, 1)
    first = -(-begin // interval) * interval
    last = [steps] if steps >= begin else []
    return itertools.chain(range(first, steps, interval), last)
