"""One run: a recipe, its data, its network and its directory."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from model_zoo.preprocessing import describe
from train import cli, config, paths
from train.engine import (
    checkpoint,
    checkpoint_files,
    models,
    optimizers,
    pixels,
    preemption,
    run_directory,
    strategies,
)
from train.engine.trainer import Evaluator
from train.input import dataset


@dataclasses.dataclass(eq=False)
class Run:
    """A recipe and the directory in which it is trained and tested; created by `open`.

    Attributes:
        workdir: The directory of the run.
        strategy: The strategy that it trains with.
        stop_signal: The signal that ends it early.
        data_dir: Directory in which tensorflow-datasets keeps its files. `None` selects
            the default.
        data: The data set.
        spec: What defines the run, including its recipe.
        schedule: The learning rate as a function of the step.
        model: The network, which returns logits.
        parameters: Number of its parameters, which exclude moving statistics.
        optimizer: The optimizer, built for the network.
        state: Variables of its progress: the step, the best accuracy so far.
        checkpoints: Saves and restores all of these.
        resumed: Whether the run resumes from a checkpoint.
        images_per_second: Speed, measured during training.
    """

    workdir: pathlib.Path
    strategy: tf.distribute.Strategy
    stop_signal: preemption.StopSignal
    data_dir: str | None
    data: dataset.ImageData
    spec: run_directory.RunSpec
    schedule: Callable
    model: keras.Model
    parameters: int
    optimizer: keras.Optimizer
    state: dict[str, tf.Variable]
    checkpoints: checkpoint.Checkpoints
    resumed: bool = False
    images_per_second: float | None = None

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        workdir: pathlib.Path,
        recipe: config.Recipe,
        strategy: tf.distribute.Strategy,
        data_dir: str | None = None,
        stop_signal: preemption.StopSignal | None = None,
    ) -> Iterator["Run"]:
        """Context in which a new run, or an existing one to resume, is open.

        No other process on this machine can open the directory meanwhile. Nothing is
        written before recipe, data, devices and directory are known to match.

        Args:
            workdir: The run's directory, new or from a run with the same settings.
            recipe: The recipe to train.
            strategy: The strategy to train it with.
            data_dir: Directory in which tensorflow-datasets keeps its files. `None`
                selects the default.
            stop_signal: The signal that ends the run early. `None` disables it.

        Raises:
            UsageError, RunError: If the settings do not match each other, or the
                directory belongs to something else.
        """
        paths.require_literal(workdir, "workdir")
        stop_signal = stop_signal or preemption.StopSignal()
        stop_signal.belongs_to(workdir, strategy)
        _require_divisible_batches(recipe, strategy.num_replicas_in_sync)
        data, spec = _load(recipe, data_dir, workdir, strategy)
        model, parameters, optimizer, schedule = _build(spec, workdir, strategy)
        spec = run_directory.claim(workdir, spec, strategy)
        is_chief = strategies.is_chief(strategy)
        lock = cli.lock(workdir, "is training in")
        with lock if is_chief else contextlib.nullcontext():
            with strategy.scope():
                state = checkpoint.new_state(spec.identity)
            run = cls(
                workdir=workdir,
                strategy=strategy,
                stop_signal=stop_signal,
                data_dir=data_dir,
                data=data,
                spec=spec,
                schedule=schedule,
                model=model,
                parameters=parameters,
                optimizer=optimizer,
                state=state,
                checkpoints=checkpoint.Checkpoints(
                    workdir, model, optimizer, state, is_chief
                ),
            )
            run._restore()
            if is_chief and run.step < run.steps:
                run_directory.record_start(workdir, run.step)
            yield run

    def _restore(self):
        with self.strategy.scope():
            self.resumed = self.checkpoints.restore_last()
            self.checkpoints.require_best(self.averaged())
        digest = checkpoint_files.short(self.checkpoints.digest())
        if len({*strategies.gather(self.strategy, digest)}) > 1:
            number, _ = strategies.worker(self.strategy)
            raise cli.RunError(
                "The workers start with different weights. Expected all to read "
                "the same directory and equal weight files. Received: "
                f"{self.workdir}, step {self.step} in worker {number}."
            )

    @property
    def recipe(self) -> config.Recipe:
        return self.spec.recipe

    @property
    def is_chief(self) -> bool:
        """Whether this process writes for all processes of the run."""
        return strategies.is_chief(self.strategy)

    @property
    def steps_per_epoch(self) -> float:
        return self.spec.steps_per_epoch

    @property
    def steps_per_loop(self) -> int:
        """The number of steps between two lines of progress: at most an epoch."""
        return min(self.recipe.steps_per_loop, max(int(self.steps_per_epoch), 1))

    @property
    def steps(self) -> int:
        return self.spec.steps

    @property
    def step(self) -> int:
        return int(self.state["step"].numpy())

    def describe(self) -> str:
        """Returns a few lines that describe what the run will do."""
        recipe, replicas = self.recipe, self.spec.replicas
        settings = recipe.optimizer
        decayed = optimizers.decayed_variables(settings, self.model)
        devices = ", ".join(self.strategy.extended.worker_devices)
        counts = ", ".join(f"{n} {name}" for name, n in self.spec.images.items())
        shape = "x".join(map(str, self.data.shape))
        images = recipe.data
        seen = describe(images.mean, images.std, images.reverse_channels)
        weights = pixels.initial_weights(recipe.model)
        begin = f"from the weights {weights}" if weights else "from scratch"
        left_out = self.data.left_out and f"left out {self.data.left_out}\n"
        arrays = len(self.model.trainable_variables)
        trained = models.trainable_parameters(self.model)
        is_part = trained < self.parameters
        trained = f", {trained:,} of them trained" if is_part else ""
        share = "all" if len(decayed) == arrays else f"{len(decayed)} of"
        if self.resumed:
            begin = f"going on from step {self.step}"
        return (
            f"model    {recipe.model.name}, {self.parameters:,} parameters{trained}\n"
            f"data     {recipe.data.name}, {shape}, {len(self.data.class_names)} "
            f"classes; images: {counts}\n{left_out}"
            f"pixels   {seen}\n"
            f"devices  {replicas} replica(s): {devices}\n"
            f"batch    {recipe.batch_size} global, {recipe.batch_size // replicas} per "
            f"replica\n"
            f"decay    {settings.weight_decay:g} on {share} {arrays} weight arrays"
            f"{'' if settings.decay_norms_and_biases else ', not on norms and biases'}"
            "\n"
            f"steps    {self.steps} ({self.steps * recipe.batch_size} images, "
            f"{self.steps / self.steps_per_epoch:.1f} epochs), {begin}\n"
            f"workdir  {self.workdir}"
        )

    def own_file(self, name: str) -> pathlib.Path | None:
        """Returns the path of a file in the writing process, `None` in the others."""
        return self.workdir / name if self.is_chief else None

    @property
    def evaluated(self) -> int:
        return int(self.state["evaluated"].numpy())

    def evaluator(self, split: str) -> Evaluator:
        """Returns an evaluator of a split with the current weights."""
        return Evaluator(
            self.strategy,
            self.model,
            self.data,
            split,
            self.recipe.batch_size,
            self.stop_signal.check,
        )

    def averaged(self):
        """Context in which the network has the weights that are evaluated."""
        return optimizers.averaged(self.optimizer, self.model.trainable_variables)

    def wait_for_chief(self) -> None:
        """Makes the other workers wait for work that only the first one does.

        Raises:
            Preempted: If the first worker ended before it was done.
        """
        try:
            strategies.of_chief(self.strategy, 0)
        except tf.errors.OpError as error:
            if not self.is_chief:
                raise cli.Preempted(
                    "the first worker ended before its export was done; everything is "
                    f"saved in {self.workdir}. Start the same commands again."
                ) from error


def _load(recipe, data_dir, workdir, strategy):
    """Reads the data set and returns it and the spec of the run with it."""
    data = dataset.load(recipe.data, data_dir)
    recipe = pixels.settle(recipe, data.shape[-1], workdir)
    data = dataclasses.replace(data, settings=recipe.data)
    spec = run_directory.RunSpec(
        recipe,
        strategy.num_replicas_in_sync,
        data.shape,
        data.class_names,
        {name: len(split) for name, split in data.splits.items()},
        data.fingerprint,
    )
    run_directory.require_agreement(spec, strategy)
    return data, spec


def _build(spec, workdir, strategy):
    """Builds the network, with its initial weights if the run is new."""
    recipe = spec.recipe
    schedule = optimizers.create_schedule(
        recipe.optimizer, recipe.batch_size, spec.steps_per_epoch, spec.steps
    )
    is_new = not strategies.of_chief(strategy, checkpoint.has_checkpoint(workdir))
    keras.utils.set_random_seed(recipe.seed)
    with strategy.scope():
        model = models.create_model(spec, recipe.model.weights if is_new else None)
        parameters = models.trainable_parameters(model)
        models.freeze(model, recipe.model.trained)
        optimizer = optimizers.create_optimizer(recipe, schedule, model)
    return model, parameters, optimizer, schedule


def _require_divisible_batches(recipe, replicas):
    if recipe.batch_size % (replicas * recipe.accumulation):
        raise cli.UsageError(
            "Recipe field batch_size must be a multiple of the number of replicas "
            f"times accumulation. Received: {recipe.batch_size} images, {replicas} "
            f"replicas, accumulation {recipe.accumulation}."
        )
    if recipe.jit_compile and replicas > 1:
        raise cli.UsageError(
            "Recipe field jit_compile is for one replica: with several, batch norms "
            f"exchange statistics within the step. Received: {replicas} replicas."
        )
