"""Layout of a run directory, contents of a checkpoint, and rules for restoring it.

RUN/config.json        the spec of the run (`run_directory`)
RUN/checkpoints/       the latest checkpoints, to resume from
RUN/best/              the best checkpoint on the validation images
RUN/metrics.csv        one row per progress line and per evaluation
RUN/results.json       results on the test images, read once, with the best checkpoint
RUN/train, validation  TensorBoard summaries
RUN/export/STEP/       the SavedModel
"""

import contextlib
import logging
import os
import pathlib

import tensorflow as tf

from train.cli import RunError
from train.engine import checkpoint_files, run_directory
from train.paths import require_literal

KEEP = 3


class Checkpoints:
    """Saves and restores the state of a run.

    Args:
        run: The directory of the run.
        model, optimizer: The built model and optimizer. Every variable is listed by its
            path, including those of the optimizer and the seeds of random layers.
        state: Further `tf.Variable`s by name, including the step.
        writes: Whether this process saves. If not, another process of the run does.
    """

    def __init__(
        self, run, model, optimizer, state: dict[str, tf.Variable], writes: bool = True
    ):
        require_literal(run, "of the run")
        self._run, self._writes = pathlib.Path(run), writes
        self._step, self._state = state["step"], state
        self._model = checkpoint_files.by_path("model", model.variables)
        self._variables = {
            **self._model,
            **checkpoint_files.by_path(
                "optimizer", optimizer.variables, optimizer.name
            ),
            **{f"state/{name}": variable for name, variable in state.items()},
        }
        self._checkpoint = tf.train.Checkpoint(variables=self._variables)
        for name in ("checkpoints", "best"):
            checkpoint_files.drop_damaged_list(self._run / name, writes)
        self._last, self._best = (
            tf.train.CheckpointManager(self._checkpoint, str(self._run / name), keep)
            for name, keep in (("checkpoints", KEEP), ("best", 1))
        )

    def save(self, best: bool = False) -> None:
        """Saves the state, to resume from it or as the best one so far.

        The state records which run it belongs to and which weights are the best.

        Raises:
            RunError: If it cannot be written. Earlier checkpoints are unchanged.
        """
        manager, step = self._best if best else self._last, int(self._step.numpy())
        if best:
            self._state["best_step"].assign(step)
            self._state["best_digest"].assign(
                checkpoint_files.short(checkpoint_files.digest_of(self._model))
            )
        if not self._writes:
            return
        try:
            manager.save(checkpoint_number=step)
        except tf.errors.OpError as error:
            raise RunError(
                f"Cannot save the checkpoint of step {step} in {manager.directory}: "
                f"{error.message}"
            ) from error

    def digest(self) -> str:
        """Returns the sha256 of all current variables, like `digest` of a checkpoint.

        Raises:
            RunError: If the replicas of this process hold different values.
        """
        names = sorted(self._variables)
        for name in names:
            first, *others = getattr(self._variables[name], "values", [None])
            if any(first.numpy().tobytes() != o.numpy().tobytes() for o in others):
                raise RunError(
                    f"The replicas differ after step {int(self._step.numpy())}. "
                    "Expected equal copies of every variable. "
                    f"Received: different copies of {name}."
                )
        return checkpoint_files.digest_of(self._variables)

    def restore_last(self) -> bool:
        """Restores the newest readable checkpoint; returns `False` if there is none.

        Damaged checkpoints are logged.

        Raises:
            RunError: If all are damaged, one belongs to another model or run, or the
                run has lost them.
        """
        paths = checkpoint_files.saved(self._last.directory)
        for path in paths:
            try:
                checkpoint_files.require_equal_shapes(path, self._variables)
                _require_own(path, int(self._state["run"].numpy()))
                with checkpoint_files.readable(path):
                    restored = self._checkpoint.restore(path)
            except checkpoint_files.DamagedError as error:
                logging.getLogger(__name__).warning("%s", error)
                continue
            restored.assert_existing_objects_matched()
            return True
        if paths:
            raise RunError(
                f"{self._last.directory} holds no readable checkpoint. Expected one of "
                f"{', '.join(os.path.basename(path) for path in paths)} to be intact."
            )
        if checkpoint_files.saved(self._best.directory):
            raise RunError(
                f"{self._last.directory} holds no checkpoint, but the run has been "
                "evaluated. Expected the checkpoints that it has saved."
            )
        return False

    def require_best(self, averaged: contextlib.AbstractContextManager) -> None:
        """Checks that the best checkpoint is intact and was saved by this run.

        If not, it is recreated from the checkpoint of the same step, if that still
        exists. Otherwise the next evaluation is the best so far. Both are logged.

        Args:
            averaged: Context in which the model has the weights that are evaluated.

        Raises:
            RunError: If it is lost and its results have been reported.
        """
        state = {name: variable.numpy() for name, variable in self._state.items()}
        if state["best_top1"] < 0:
            return
        try:
            best_checkpoint(self._run)
            return
        except RunError as error:
            logging.getLogger(__name__).warning("%s", error)
        step = int(state["best_step"])
        if self._make_best_again(step, state, averaged):
            return
        if (self._run / "results.json").exists():
            raise RunError(
                f"The best weights of {self._run} are lost: those of step {step}, used "
                "for its results.json and export. Expected them in best or "
                f"checkpoints. Delete results.json and export/{step}, and the same "
                "command creates new ones from the last weights."
            )
        logging.getLogger(__name__).warning("The next evaluation will replace it.")
        self._state["best_top1"].assign(-1.0)
        self._state["evaluated"].assign(int(state["step"]) - 1)

    def _make_best_again(self, step, state, averaged):
        """Recreates the best checkpoint from that of `step`; returns whether it did."""
        copies = [
            path
            for path in checkpoint_files.saved(self._last.directory)
            if checkpoint_files.step_of(path) == step
        ]
        last = [variable.numpy() for variable in self._variables.values()]
        for path in copies:
            try:
                checkpoint_files.require_equal_shapes(path, self._variables)
                with checkpoint_files.readable(path):
                    self._checkpoint.restore(path)
            except RunError as error:
                logging.getLogger(__name__).warning("%s", error)
                continue
            with averaged:
                is_best = (
                    checkpoint_files.short(checkpoint_files.digest_of(self._model))
                    == state["best_digest"]
                )
                if is_best:
                    self.save(best=True)
            for variable, value in zip(self._variables.values(), last, strict=True):
                variable.assign(value)
            if is_best:
                logging.getLogger(__name__).warning("Recreated from %s.", path)
                return True
        return False


def has_checkpoint(run: pathlib.Path) -> bool:
    """Returns whether a run has saved anything to resume from."""
    return bool(checkpoint_files.saved(run / "checkpoints"))


def new_state(identity: int = 0) -> dict[str, tf.Variable]:
    """Creates the variables that hold the identity and the progress of a run.

    `identity` is the run's `run_directory.RunSpec.identity`.
    """
    numbers = {
        "run": identity,
        "step": 0,
        "evaluated": 0,
        "best_step": 0,
        "best_digest": 0,
    }
    state = {
        name: tf.Variable(number, dtype=tf.int64, trainable=False)
        for name, number in numbers.items()
    }
    return state | {"best_top1": tf.Variable(-1.0, trainable=False)}


def best_checkpoint(run: pathlib.Path) -> tuple[str, int]:
    """Verifies the best checkpoint of a run and returns its path and step.

    Raises:
        RunError: If the run has none yet, it is damaged, or it is not the one that the
            run saved as its best.
    """
    paths = checkpoint_files.saved(run / "best")
    if not paths:
        raise RunError(
            f"{run / 'best'} holds no checkpoint. Expected a run that has been "
            "evaluated at least once."
        )
    best = paths[0]
    of_best = _require_own(best, run_directory.read_spec(run).identity)
    last = next(checkpoint_files.states(run / "checkpoints"), of_best)
    # a run killed between the two saves has a newer best checkpoint
    expected = of_best if of_best["step"] > last["step"] else last
    received = checkpoint_files.short(checkpoint_files.stored_digest(best, "model/"))
    if (
        received != expected["best_digest"]
        or checkpoint_files.step_of(best) != expected["best_step"]
    ):
        raise RunError(
            f"{best} does not hold the best weights of this run. Expected those of "
            f"step {expected['best_step']}, {expected['best_digest']:014x}. "
            f"Received: {received:014x}."
        )
    return best, checkpoint_files.step_of(best)


def _require_own(path, identity):
    """Returns the state in a checkpoint after checking that it belongs to this run."""
    recorded = checkpoint_files.recorded(path)
    if recorded.get("run") != identity:
        raise RunError(
            f"{path} is a checkpoint of another run. Expected one of this run."
        )
    return recorded


def digest(run: pathlib.Path) -> tuple[int, str]:
    """Returns the step of a run's last checkpoint and the sha256 of all its variables.

    The digest covers name, type, shape and bytes of each variable, ordered by name.

    Raises:
        RunError: If the directory holds no run, or the run has no readable checkpoint.
    """
    run_directory.read_spec(run)
    paths = checkpoint_files.saved(run / "checkpoints")
    if not paths:
        raise RunError(
            f"{run / 'checkpoints'} holds no checkpoint. Expected a run that has "
            "saved one."
        )
    return checkpoint_files.step_of(paths[0]), checkpoint_files.stored_digest(
        paths[0], ""
    )


def network_digest(model) -> str:
    """Returns the sha256 of the variables of a model, computed as in `digest`."""
    return checkpoint_files.digest_of(
        checkpoint_files.by_path("model", model.variables)
    )


def restore_model(path: str, model) -> None:
    """Restores only the variables of a model from a checkpoint.

    Raises:
        RunError: If the checkpoint belongs to another model.
    """
    variables = checkpoint_files.by_path("model", model.variables)
    checkpoint_files.require_equal_shapes(path, variables, prefix="model/")
    checkpoint = tf.train.Checkpoint(variables=variables)
    with checkpoint_files.readable(path):
        checkpoint.restore(path).expect_partial()
