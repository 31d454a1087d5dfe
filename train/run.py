"""One run: trains a recipe in its directory, then evaluates, exports and checks it."""

import dataclasses
import itertools
import math
import os
import pathlib
import platform
import sys

import keras
import orbit
import tensorflow as tf

from an_keras.inference import attentive_layers, collect_attention
from model_zoo.preprocessing import describe
from train import (
    checkpoint,
    checkpoint_files,
    classification,
    command,
    config,
    data,
    export,
    fingerprint,
    optimizers,
    paths,
    pixels,
    preemption,
    progress,
    saved_model,
    servable,
    strategies,
)

ATTENTION_IMAGES = 64
# What an image that is gone, cut short or no image raises in the middle of training.
UNREADABLE = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
)


class Run:
    """A recipe, the devices it trains on, and the directory it lives in.

    Nothing is written before all of them are known to fit.

    Args:
        workdir: of the run; new, or of a run with the same settings, which goes on.
        recipe: what to train.
        strategy: where.
        data_dir: where tensorflow-datasets keeps its files; `None`: its default.
        stop_signal: what ends it early; `None`: nothing.

    Raises:
        UsageError, RunError: the settings do not fit each other, or the directory
            belongs to something else.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        recipe: config.Recipe,
        strategy: tf.distribute.Strategy,
        data_dir: str | None = None,
        stop_signal: preemption.StopSignal | None = None,
    ):
        paths.require_literal(workdir, "workdir")
        self.workdir, self.strategy = workdir, strategy
        self.data_dir, self.images_per_second = data_dir, None
        self.is_chief = strategies.is_chief(strategy)
        self.worker = strategies.worker(strategy)
        self.stop_signal = stop_signal or preemption.StopSignal()
        self.stop_signal.belongs_to(workdir, strategy)
        replicas = strategy.num_replicas_in_sync
        if recipe.batch_size % (replicas * recipe.accumulation):
            raise command.UsageError(
                "Recipe field batch_size must be a multiple of the number of replicas "
                f"times accumulation. Received: {recipe.batch_size} images, {replicas} "
                f"replicas, accumulation {recipe.accumulation}."
            )
        if recipe.jit_compile and replicas > 1:
            raise command.UsageError(
                "Recipe field jit_compile is for one replica: batch norms of several "
                f"exchange statistics in the middle. Received: {replicas} replicas."
            )
        self.data = data.load(recipe.data, data_dir)
        recipe = pixels.settle(recipe, self.data.shape[-1], workdir)
        self.recipe = recipe
        self.data = dataclasses.replace(self.data, settings=recipe.data)
        images = {name: len(split) for name, split in self.data.splits.items()}
        self.facts = fingerprint.Facts(
            recipe,
            replicas,
            self.data.shape,
            self.data.class_names,
            images,
            self.data.fingerprint,
        )
        fingerprint.require_agreement(self.facts, strategy)
        self.steps_per_epoch = images["train"] / recipe.batch_size
        self.steps = recipe.steps or math.ceil(recipe.epochs * self.steps_per_epoch)
        self.schedule = optimizers.create_schedule(
            recipe.optimizer, recipe.batch_size, self.steps_per_epoch, self.steps
        )
        keras.utils.set_random_seed(recipe.seed)
        with strategy.scope():
            known = self._of_chief(checkpoint.has_checkpoint(workdir))
            self.model = classification.create_model(
                self.facts, None if known else recipe.model.weights
            )
            self.optimizer = optimizers.create_optimizer(
                recipe, self.schedule, self.model
            )
        self.facts = fingerprint.claim(workdir, self.facts, strategy)
        with strategy.scope():
            self.state = checkpoint.new_state(self.facts.identity)
        if self.is_chief:
            self.lock = command.lock(workdir, "trains in")
        self.checkpoints = checkpoint.Checkpoints(
            workdir, self.model, self.optimizer, self.state, self.is_chief
        )
        with strategy.scope():
            self.resumed = self.checkpoints.restore_last()
            self.checkpoints.require_best(self._averaged())
        digest = checkpoint_files.short(self.checkpoints.digest())
        if len({*strategies.gather(strategy, digest)}) > 1:
            raise command.RunError(
                "The workers begin with different weights. Expected one directory, and "
                f"equal files of weights, that all of them read. Received: {workdir}, "
                f"step {self.step} in worker {self.worker[0]}."
            )

    @property
    def step(self) -> int:
        return int(self.state["step"].numpy())

    def describe(self) -> str:
        """What is about to happen, in a few lines."""
        recipe, replicas = self.recipe, self.facts.replicas
        settings = recipe.optimizer
        decayed = optimizers.decayed_variables(settings, self.model)
        devices = ", ".join(self.strategy.extended.worker_devices)
        counts = ", ".join(f"{n} {name}" for name, n in self.facts.images.items())
        shape = "x".join(map(str, self.data.shape))
        images = recipe.data
        seen = describe(images.mean, images.std, images.reverse_channels)
        weights = pixels.initial_weights(recipe.model)
        begin = f"from the weights {weights}" if weights else "from scratch"
        left_out = self.data.left_out and f"; left out: {self.data.left_out}"
        if self.resumed:
            begin = f"going on from step {self.step}"
        return (
            f"model    {recipe.model.name}, "
            f"{classification.trainable_parameters(self.model):,} parameters\n"
            f"data     {recipe.data.name}, {shape}, {len(self.data.class_names)} "
            f"classes; images: {counts}{left_out}\n"
            f"pixels   {seen}\n"
            f"devices  {replicas} replica(s): {devices}\n"
            f"batch    {recipe.batch_size} global, {recipe.batch_size // replicas} per "
            f"replica\n"
            f"decay    {settings.weight_decay:g} on {len(decayed)} of "
            f"{len(self.model.trainable_variables)} weight arrays"
            f"{'' if settings.decay_norms_and_biases else ', not on norms and biases'}"
            "\n"
            f"steps    {self.steps} ({self.steps * recipe.batch_size} images, "
            f"{self.steps / self.steps_per_epoch:.1f} epochs), {begin}\n"
            f"workdir  {self.workdir}"
        )

    def train(self) -> None:
        """Trains to the last step; saves the last checkpoints and the best one.

        Raises:
            RunError: the loss is no number any more.
            Preempted: the process was asked to stop (SIGTERM); everything is saved.
        """
        number, workers = self.worker
        if self.is_chief:
            print(self.describe(), flush=True)
        else:
            print(f"worker   {number} of {workers}; the first one reports", flush=True)
        if self.step == self.steps and self.evaluated == self.steps:
            return
        trainer = classification.Trainer(
            self.strategy,
            self.model,
            self.optimizer,
            self.schedule,
            self.state["step"],
            self.data,
            self.recipe,
            self.steps,
        )
        validator = self._evaluator("validation")
        metrics_file = progress.MetricsFile(
            self._own("metrics.csv"), self.step, self.evaluated
        )
        shown = progress.Progress(
            self.step, self.steps, self.recipe.batch_size, quiet=not self.is_chief
        )

        def after_loop(output):
            output = {name: float(value) for name, value in output.items()}
            classification.require_finite(output, shown.step + 1, self.step)
            optimizers.require_scale(self.optimizer, shown.step + 1, self.step)
            metrics_file.append(self.step, "train", output)
            shown.report(self.step, output["loss"], output["top1"])
            self.stop_signal.check()

        controller = orbit.Controller(
            strategy=self.strategy,
            trainer=trainer,
            evaluator=validator,
            global_step=self.state["step"],
            steps_per_loop=self.recipe.steps_per_loop,
            summary_dir=self._own("train"),
            summary_interval=self.recipe.steps_per_loop,
            eval_summary_dir=self._own("validation"),
            train_actions=[after_loop],
        )
        try:
            with self.stop_signal.deferred():
                try:
                    self._train_and_evaluate(controller, validator, metrics_file, shown)
                except command.Preempted:
                    self.checkpoints.save()
                    raise
        except UNREADABLE as error:
            raise command.RunError(
                f"Training stopped after step {self.step}. Expected readable images of "
                f"{self.recipe.data.name}. Received: {error.message.splitlines()[0]}"
            ) from error
        finally:
            shown.close()
        self.images_per_second = shown.images_per_second
        if self.is_chief and self.images_per_second:
            print(f"trained at {self.images_per_second:.0f} images/s")
        digest = self.checkpoints.digest()
        print(f"state    step {self.step}  sha256 {digest}", flush=True)
        digest = checkpoint_files.short(digest)
        if len({*strategies.gather(self.strategy, digest)}) > 1:
            raise command.RunError("The workers have ended with different weights.")

    def _train_and_evaluate(self, controller, validator, metrics_file, shown):
        for target in self._evaluation_steps():
            with classification.quiet_orbit():
                controller.train(target, checkpoint_at_completion=False)
            with self._averaged():
                with classification.quiet_orbit():
                    results = controller.evaluate(validator.steps)
                results = {k: float(v) for k, v in results.items()}
                is_best = self._record(results, metrics_file)
                if is_best:
                    self.checkpoints.save(best=True)
                self._record_attention(controller)
            self.checkpoints.save()
            shown.write(
                f"step {self.step}/{self.steps}  validation loss "
                f"{results['loss']:.4f}  accuracy {results['top1']:.4f}"
                f"{'  (best)' if is_best else ''}"
            )
            shown.resume_clock()
            self.stop_signal.check()

    def _of_chief(self, number: int) -> int:
        """What the chief says, where files may look otherwise to others."""
        return strategies.gather(self.strategy, number)[0]

    def _own(self, name) -> pathlib.Path | None:
        """A file of the run for the process that writes; `None` for the others."""
        return self.workdir / name if self.is_chief else None

    @property
    def evaluated(self) -> int:
        return int(self.state["evaluated"].numpy())

    def _evaluator(self, split):
        return classification.Evaluator(
            self.strategy,
            self.model,
            self.data,
            split,
            self.recipe.batch_size,
            self.stop_signal.check,
        )

    def _evaluation_steps(self):
        """Steps at which the validation images are looked at, from here to the end."""
        loop = self.recipe.steps_per_loop
        loops = round(self.recipe.evaluate_every * self.steps_per_epoch / loop)
        interval = max(loops, 1) * loop
        return evaluation_steps(interval, self.steps, self.step, self.evaluated)

    def _record(self, results, metrics_file):
        """Whether these are the best results so far."""
        classification.require_finite(results, self.evaluated + 1, self.step)
        metrics_file.append(self.step, "validation", results)
        self.state["evaluated"].assign(self.step)
        is_best = results["top1"] >= float(self.state["best_top1"].numpy())
        if is_best:
            self.state["best_top1"].assign(results["top1"])
        return is_best

    def _averaged(self):
        return optimizers.averaged(self.optimizer, self.model.trainable_variables)

    def _record_attention(self, controller):
        """Histograms of what each layer's gate says to a few validation images."""
        if not self.is_chief or not attentive_layers(self.model):
            return
        writer = controller.eval_summary_manager.summary_writer()
        batches = data.evaluation_batches(self.data, "validation", ATTENTION_IMAGES)
        images, _, weights = next(iter(batches))
        images = images[weights > 0]
        with writer.as_default(step=self.step):
            for path, attention in collect_attention(self.model, images).items():
                tf.summary.histogram(f"attention/{path}", attention)
        controller.eval_summary_manager.flush()

    def finish(self) -> None:
        """Reads the test images once, exports the best weights and checks the export.

        Raises:
            RunError: the export does not reproduce the accuracy.
            Preempted: the process was asked to stop (SIGTERM), or the first worker was
                before its export was done.
        """
        with self.stop_signal.deferred():
            results = self._test()
        if self.is_chief:
            self._export(results)
        try:
            self._of_chief(0)  # nobody leaves while the chief is at work
        except tf.errors.OpError as error:
            if not self.is_chief:
                raise command.Preempted(
                    "the first worker has left before its export was done; everything "
                    f"is saved in {self.workdir}. Start the same commands again."
                ) from error

    def _export(self, results):
        top5 = f"  top-5 {results['top5']:.4f}" if "top5" in results else ""
        print(
            f"test     top-1 {results['top1']:.4f}{top5}  loss {results['loss']:.4f}  "
            f"({results['images']} images, best checkpoint: step {results['step']})",
            flush=True,
        )
        version = self.workdir / "export" / str(results["step"])
        if version.exists():
            saved_model.require_results(version, results)
            self._serve_check(version, f" {saved_model.AGAIN}")
        else:
            network = servable.of_run(self.workdir)
            export.export(network, version.parent, check=self._serve_check)
        print(f"export   SavedModel in {version}", flush=True)
        print(f"curves   tensorboard --logdir {self.workdir}", flush=True)

    def _serve_check(self, version, advice=""):
        data_set = f"--data={self.recipe.data.name}"  # where it lies now
        checked = [sys.executable, "-m", "train.serve_check", data_set]
        if self.data_dir:
            checked.append(f"--data_dir={self.data_dir}")
        checked += ["--", str(version)]  # its name may begin with -
        if self.stop_signal.call(checked):
            raise command.RunError(f"The serve check of {version} failed.{advice}")

    def _test(self):
        best, step = checkpoint.best_checkpoint(self.workdir)
        with self.strategy.scope():
            checkpoint.restore_model(best, self.model)
        sha256 = checkpoint.network_digest(self.model)
        path = self.workdir / "results.json"
        if self._of_chief(path.exists()):
            return fingerprint.read_results(self.workdir, sha256=sha256, step=step)
        results = {
            "model": self.recipe.model.name,
            "data": self.recipe.data.name,
            "step": step,
            "sha256": sha256,
            "steps": self.steps,
            "batch_size": self.recipe.batch_size,
            "images": self.facts.images["test"],
            "parameters": classification.trainable_parameters(self.model),
            **self._evaluator("test").run(),
            "images_per_second": self.images_per_second,
            "device": f"{os.cpu_count()} x {platform.machine()}",
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        }
        if self.is_chief:
            fingerprint.write_json(path, results)
        return results


def evaluation_steps(interval: int, steps: int, step: int, evaluated: int):
    """Multiples of `interval` and the last of `steps`, from `step` on, not done yet."""
    begin = max(step, evaluated + 1, 1)
    first = -(-begin // interval) * interval
    last = [steps] if steps >= begin else []
    return itertools.chain(range(first, steps, interval), last)
