"""The orbit trainer and evaluator for classification."""

import contextlib
import os

import orbit
import tensorflow as tf

from train.engine.metrics import RunningMeans, cross_entropy, top_k
from train.input import pipeline


class Trainer(orbit.StandardTrainer):
    """Trains a model that returns logits.

    Args:
        strategy: The strategy with the replicas.
        model, optimizer: Keras objects, built inside the strategy's scope.
        schedule: Learning rate as a function of the step, for the metrics.
        step: Number of steps done, an int64 `tf.Variable`.
        data: The data set.
        recipe: The recipe of the run.
        steps: Number of steps in the run.
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
            lambda context: pipeline.training_batches(
                data, recipe.seed, recipe.batch_size, start, steps, context
            )
        )
        with strategy.scope():
            self._means = RunningMeans()
        super().__init__(batches, orbit.StandardTrainerOptions(use_tf_while_loop=True))

    def train_loop_begin(self):
        self._means.reset()

    def train_step(self, iterator):
        """Trains one step on the next batch; called in the loop of orbit."""
        self._strategy.run(self._replica_step, args=next(iterator))
        self._step.assign_add(1)

    def _replica_step(self, *batch):
        """`batch`: images, labels and, with mixup, the other labels and the share."""
        parts = [tf.split(array, self._recipe.accumulation) for array in batch]
        gradients = []
        for part in zip(*parts, strict=True):
            with tf.control_dependencies(gradients):  # one after the other
                part = [tf.identity(array) for array in part]
            more, losses, logits = self._gradients(*part)
            if gradients:
                more = [a + b for a, b in zip(gradients, more, strict=True)]
            gradients = more
            self._means.update(
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
            **self._means.results(self._k),
            "learning_rate": rate,
            "weight_norm": tf.linalg.global_norm(variables),
        }


class Evaluator(orbit.StandardEvaluator):
    """Computes loss and accuracies over a split, exactly for any batch size.

    Args:
        strategy, model, data: As in `Trainer`.
        split: Name of the split.
        batch_size: Batch size over all replicas.
        after_step: Called after every step. May raise to end the evaluation.
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
            lambda context: pipeline.evaluation_batches(
                data, split, batch_size, context
            )
        )
        with strategy.scope():
            self._means = RunningMeans()
        super().__init__(batches)

    def eval_begin(self):
        self._means.reset()

    def eval_step(self, iterator):
        self._strategy.run(self._replica_step, args=next(iterator))

    def _replica_step(self, images, labels, sample_weight):
        logits = self._model(images, training=False)
        self._means.update(
            cross_entropy(labels, logits), logits, labels, sample_weight, self._k
        )

    def eval_reduce(self, state=None, step_outputs=None):
        self._after_step()

    def eval_end(self):
        return self._means.results(self._k)

    def run(self) -> dict[str, float]:
        """Evaluates the whole split."""
        results = self.evaluate(tf.constant(self.steps))
        return {name: float(value) for name, value in results.items()}


@contextlib.contextmanager
def quiet_orbit():
    """Silences orbit, which prints each loop to stdout; `Progress` shows the same."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
