"""One run: a recipe, its data, its network and the directory they live in."""

import dataclasses
import math
import pathlib
from collections.abc import Callable

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
    """A recipe and the directory in which it is trained and tested; `open` makes one.

    Attributes:
        workdir: Its directory.
        strategy: Where it computes.
        stop_signal: What ends it early.
        data_dir: Where tensorflow-datasets keeps its files; `None`: its default.
        data: The data set.
        facts: What the run is, its recipe among it.
        schedule: The learning rate as a function of the step.
        model: The network; returns logits.
        optimizer: Built for the network.
        state: Further variables: the step, the best accuracy so far.
        checkpoints: Saves and restores all of these.
        lock: Keeps other processes out of the directory while it is open.
        resumed: Whether it goes on from a checkpoint.
        images_per_second: Measured while it trained.
    """

    workdir: pathlib.Path
    strategy: tf.distribute.Strategy
    stop_signal: preemption.StopSignal
    data_dir: str | None
    data: dataset.ImageData
    facts: run_directory.Facts
    schedule: Callable
    model: keras.Model
    optimizer: keras.Optimizer
    state: dict[str, tf.Variable]
    checkpoints: checkpoint.Checkpoints
    lock: int | None
    resumed: bool = False
    images_per_second: float | None = None

    @classmethod
    def open(
        cls,
        workdir: pathlib.Path,
        recipe: config.Recipe,
        strategy: tf.distribute.Strategy,
        data_dir: str | None = None,
        stop_signal: preemption.StopSignal | None = None,
    ) -> "Run":
        """Opens a run, a new one or one to go on with.

        Nothing is written before recipe, data, devices and directory are known to fit.

        Args:
            workdir: The run's directory; new, or of a run with the same settings.
            recipe: The recipe to train.
            strategy: Where to train it.
            data_dir: Where tensorflow-datasets keeps its files; `None`: its default.
            stop_signal: What ends the run early; `None`: nothing.

        Raises:
            UsageError, RunError: The settings do not fit each other, or the directory
                belongs to something else.
        """
        paths.require_literal(workdir, "workdir")
        stop_signal = stop_signal or preemption.StopSignal()
        stop_signal.belongs_to(workdir, strategy)
        replicas = strategy.num_replicas_in_sync
        _require_divisible_batches(recipe, replicas)

        data = dataset.load(recipe.data, data_dir)
        recipe = pixels.settle(recipe, data.shape[-1], workdir)
        data = dataclasses.replace(data, settings=recipe.data)
        facts = run_directory.Facts(
            recipe,
            replicas,
            data.shape,
            data.class_names,
            {name: len(split) for name, split in data.splits.items()},
            data.fingerprint,
        )
        run_directory.require_agreement(facts, strategy)

        schedule = optimizers.create_schedule(
            recipe.optimizer, recipe.batch_size, *_length(facts)
        )
        is_new = not strategies.of_chief(strategy, checkpoint.has_checkpoint(workdir))
        keras.utils.set_random_seed(recipe.seed)
        with strategy.scope():
            weights = recipe.model.weights if is_new else None
            model = models.create_model(facts, weights)
            optimizer = optimizers.create_optimizer(recipe, schedule, model)

        facts = run_directory.claim(workdir, facts, strategy)
        is_chief = strategies.is_chief(strategy)
        lock = cli.lock(workdir, "trains in") if is_chief else None
        with strategy.scope():
            state = checkpoint.new_state(facts.identity)
        run = cls(
            workdir=workdir,
            strategy=strategy,
            stop_signal=stop_signal,
            data_dir=data_dir,
            data=data,
            facts=facts,
            schedule=schedule,
            model=model,
            optimizer=optimizer,
            state=state,
            checkpoints=checkpoint.Checkpoints(
                workdir, model, optimizer, state, is_chief
            ),
            lock=lock,
        )
        run._restore()
        return run

    def _restore(self):
        with self.strategy.scope():
            self.resumed = self.checkpoints.restore_last()
            self.checkpoints.require_best(self.averaged())
        digest = checkpoint_files.short(self.checkpoints.digest())
        if len({*strategies.gather(self.strategy, digest)}) > 1:
            number, _ = strategies.worker(self.strategy)
            raise cli.RunError(
                "The workers begin with different weights. Expected one directory, and "
                "equal files of weights, that all of them read. Received: "
                f"{self.workdir}, step {self.step} in worker {number}."
            )

    @property
    def recipe(self) -> config.Recipe:
        return self.facts.recipe

    @property
    def is_chief(self) -> bool:
        """Whether this process writes for all processes of the run."""
        return strategies.is_chief(self.strategy)

    @property
    def steps_per_epoch(self) -> float:
        return _length(self.facts)[0]

    @property
    def steps(self) -> int:
        """The length of the run."""
        return _length(self.facts)[1]

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
            f"{models.trainable_parameters(self.model):,} parameters\n"
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

    def own_file(self, name: str) -> pathlib.Path | None:
        """A file of the run for the process that writes; `None` for the others."""
        return self.workdir / name if self.is_chief else None

    @property
    def evaluated(self) -> int:
        return int(self.state["evaluated"].numpy())

    def evaluator(self, split: str) -> Evaluator:
        """Evaluates a split with the weights as they are."""
        return Evaluator(
            self.strategy,
            self.model,
            self.data,
            split,
            self.recipe.batch_size,
            self.stop_signal.check,
        )

    def averaged(self):
        """Within it the network has the weights that are evaluated."""
        return optimizers.averaged(self.optimizer, self.model.trainable_variables)

    def wait_for_chief(self) -> None:
        """The other workers wait here for what only the first one does.

        Raises:
            Preempted: the first worker has left before it was done.
        """
        try:
            strategies.of_chief(self.strategy, 0)
        except tf.errors.OpError as error:
            if not self.is_chief:
                raise cli.Preempted(
                    "the first worker has left before its export was done; everything "
                    f"is saved in {self.workdir}. Start the same commands again."
                ) from error


def _require_divisible_batches(recipe, replicas):
    if recipe.batch_size % (replicas * recipe.accumulation):
        raise cli.UsageError(
            "Recipe field batch_size must be a multiple of the number of replicas "
            f"times accumulation. Received: {recipe.batch_size} images, {replicas} "
            f"replicas, accumulation {recipe.accumulation}."
        )
    if recipe.jit_compile and replicas > 1:
        raise cli.UsageError(
            "Recipe field jit_compile is for one replica: batch norms of several "
            f"exchange statistics in the middle. Received: {replicas} replicas."
        )


def _length(facts):
    """Steps of an epoch, which need not be whole, and of the run."""
    recipe = facts.recipe
    steps_per_epoch = facts.images["train"] / recipe.batch_size
    return steps_per_epoch, recipe.steps or math.ceil(recipe.epochs * steps_per_epoch)
