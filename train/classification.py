"""The orbit trainer and evaluator for classification, and the loop around them."""

import contextlib
import math
import os
import pathlib
import re
import tempfile

import keras
import numpy as np
import orbit
import tensorflow as tf

import model_zoo
from train import checkpoint, fingerprint, optimizers
from train import data as input_data
from train.command import RunError, UsageError

NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.-]*")


def create_model(facts: fingerprint.Facts, weights: str | None = None) -> keras.Model:
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


def load_best(workdir: pathlib.Path) -> tuple[keras.Model, fingerprint.Facts, int]:
    """The network of a run with its best weights, the run's facts, and their step.

    Raises:
        RunError: there is no such run, or it has no checkpoint of this network.
    """
    facts = fingerprint.read_facts(workdir)
    path, step = checkpoint.best_checkpoint(workdir)
    model = create_model(facts)
    checkpoint.restore_model(path, model)
    return model, facts, step


def load_last(
    workdir: pathlib.Path, averaged: bool
) -> tuple[keras.Model, fingerprint.Facts, int]:
    """The network of a run with its last weights or their averages, and their step.

    Raises:
        UsageError: the run keeps no averages.
        RunError: there is no such run, or it has no checkpoint of this network.
    """
    facts = fingerprint.read_facts(workdir)
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


def top_k(data: input_data.ImageData) -> int:
    """How many guesses the second accuracy allows: 5, or 1 where 5 say nothing."""
    return 5 if len(data.class_names) > 5 else 1


class Sums:
    """Sums over examples of loss and correct answers, over steps and replicas."""

    NAMES = ("loss", "top1", "top5", "examples")

    def __init__(self):
        self._sums = {
            name: tf.Variable(
                0.0,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
                name=name,
            )
            for name in self.NAMES
        }

    def reset(self) -> None:
        for variable in self._sums.values():
            variable.assign(tf.zeros_like(variable))

    def add(self, losses, logits, labels, weights, k: int) -> None:
        """Adds the examples of a batch; (N,) losses, (N, classes) logits."""
        # as an export guesses: equal logits are no right answer for every class
        _, guesses = tf.math.top_k(logits, k)
        hits = tf.equal(tf.cast(guesses, labels.dtype), labels[:, tf.newaxis])
        hits = tf.cast(hits, tf.float32)
        correct = {"top1": hits[:, 0], "top5": tf.reduce_sum(hits, axis=1)}
        values = {"loss": losses, **correct, "examples": tf.ones_like(losses)}
        for name, value in values.items():
            value = tf.cast(value, tf.float32)
            self._sums[name].assign_add(tf.reduce_sum(value * weights))

    def means(self, k: int) -> dict:
        """Means over the examples; no top5 where it would say nothing."""
        names = ("loss", "top1", "top5") if k > 1 else ("loss", "top1")
        return {name: self._sums[name] / self._sums["examples"] for name in names}


def cross_entropy(labels, logits, smoothing=0.0):
    """Softmax cross entropy of each example, (N,).

    With smoothing e: (1 - e) times that with the label, plus e times the mean of those
    with every class, the true one included.
    """
    if logits.dtype != tf.float64:
        logits = tf.cast(logits, tf.float32)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    if not smoothing:
        return losses
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1.0 - smoothing) * losses + smoothing * uniform


class Trainer(orbit.StandardTrainer):
    """Trains a model that returns logits.

    Args:
        strategy: where the replicas are.
        model, optimizer: Keras, built inside of the strategy's scope.
        schedule: the learning rate as a function of the step, for the record.
        step: `tf.Variable` int64, the steps done.
        data: the data set.
        recipe: of the run.
        steps: of the run.
    """

    def __init__(
        self,
        strategy,
        model,
        optimizer,
        schedule,
        step,
        data,
        recipe,
        steps,
    ):
        self._strategy, self._model, self._recipe = strategy, model, recipe
        self._optimizer, self._schedule = optimizer, schedule
        self._step, self._k = step, top_k(data)
        if recipe.jit_compile:
            self._gradients = tf.function(self._gradients, jit_compile=True)
        start = int(step.numpy())
        batches = strategy.distribute_datasets_from_function(
            lambda context: input_data.training_batches(
                data, recipe.seed, recipe.batch_size, start, steps, context
            )
        )
        with strategy.scope():
            self._sums = Sums()
        super().__init__(batches, orbit.StandardTrainerOptions(use_tf_while_loop=True))

    def train_loop_begin(self):
        self._sums.reset()

    def train_step(self, iterator):
        self._strategy.run(self._replica_step, args=next(iterator))
        self._step.assign_add(1)

    def _replica_step(self, *batch):
        """`batch`: images, labels, and with mixup the others' labels and our share."""
        parts = [tf.split(array, self._recipe.accumulation) for array in batch]
        gradients = []
        for part in zip(*parts, strict=True):
            with tf.control_dependencies(gradients):  # one after the other
                part = [tf.identity(array) for array in part]
            more, losses, logits = self._gradients(*part)
            if gradients:
                more = [a + b for a, b in zip(gradients, more, strict=True)]
            gradients = more
            self._sums.add(
                losses, logits, part[1], tf.ones_like(losses, tf.float32), self._k
            )
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        self._optimizer.apply(gradients, self._model.trainable_variables)

    def _gradients(self, images, labels, others=None, share=None):
        smoothing = self._recipe.label_smoothing
        with tf.GradientTape() as tape:
            logits = self._model(images, training=True)
            losses = cross_entropy(labels, logits, smoothing)
            if others is not None:
                mixed = cross_entropy(others, logits, smoothing)
                share = tf.cast(share, losses.dtype)
                losses = share * losses + (1.0 - share) * mixed
            loss = tf.nn.compute_average_loss(
                losses, global_batch_size=self._recipe.batch_size
            )
            loss = self._optimizer.scale_loss(loss)
        variables = [v.value for v in self._model.trainable_variables]
        return tape.gradient(loss, variables), losses, logits

    def train_loop_end(self):
        rate = self._schedule(self._step - 1)
        variables = [v.value for v in self._model.trainable_variables]
        return {
            **self._sums.means(self._k),
            "learning_rate": rate,
            "weight_norm": tf.linalg.global_norm(variables),
        }


class Evaluator(orbit.StandardEvaluator):
    """Loss and accuracies over a split, exact whatever the batch size.

    Args:
        strategy, model, data: as in `Trainer`.
        split: `"validation"` or `"test"`.
        batch_size: over all replicas.
        after_step: called after every step; may raise, to end the evaluation.
    """

    def __init__(
        self, strategy, model, data, split, batch_size, after_step=lambda: None
    ):
        self._strategy, self._model, self._k = strategy, model, top_k(data)
        self._after_step = after_step
        replicas = strategy.num_replicas_in_sync
        self.steps = data.splits[split].evaluation_steps(
            batch_size // replicas, replicas
        )
        batches = strategy.distribute_datasets_from_function(
            lambda context: input_data.evaluation_batches(
                data, split, batch_size, context
            )
        )
        with strategy.scope():
            self._sums = Sums()
        super().__init__(batches)

    def eval_begin(self):
        self._sums.reset()

    def eval_step(self, iterator):
        self._strategy.run(self._replica_step, args=next(iterator))

    def _replica_step(self, images, labels, weights):
        logits = self._model(images, training=False)
        self._sums.add(cross_entropy(labels, logits), logits, labels, weights, self._k)

    def eval_reduce(self, state=None, step_outputs=None):
        self._after_step()

    def eval_end(self):
        return self._sums.means(self._k)

    def run(self) -> dict[str, float]:
        """Evaluates the whole split."""
        results = self.evaluate(tf.constant(self.steps))
        return {name: float(value) for name, value in results.items()}


def require_finite(metrics: dict, first_step: int, last_step: int) -> None:
    """Stops a run whose loss or weights are no numbers any more.

    Raises:
        RunError: names the steps in which it happened.
    """
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise RunError(
                f"Training diverged between steps {first_step} and {last_step}. "
                f"Expected a finite {name.replace('_', ' ')}. Received: {value}. A "
                "smaller --set=optimizer.learning_rate may help."
            )


@contextlib.contextmanager
def quiet_orbit():
    """orbit prints each loop to stdout; `Progress` shows the same, once."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
