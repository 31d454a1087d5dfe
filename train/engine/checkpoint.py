"""What a run directory holds, what a checkpoint holds, and when they may be restored.

RUN/config.json        what the run is (`run_directory`)
RUN/checkpoints/       the last checkpoints, to go on from
RUN/best/              the checkpoint that is best on the validation images
RUN/metrics.csv        one row for each line of progress and each evaluation
RUN/results.json       the test images, read once, with the best checkpoint
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
        run: the directory of the run.
        model, optimizer: built. Every variable is listed by its path; those of the
            optimizer and the seeds of random layers among them.
        state: further `tf.Variable`s by name, the step among them.
        writes: this process saves; another one of the run does it otherwise.
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
        """Saves the state, to go on from or as the best one so far.

        The state says of which run it is, and which weights are the best ones.

        Raises:
            RunError: it cannot be written; the checkpoints before it are as they were.
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
                f"{manager.directory} takes no checkpoint of step {step}: "
                f"{error.message}"
            ) from error

    def digest(self) -> str:
        """sha256 of all variables as they are, as `digest` has it of a checkpoint.

        Raises:
            RunError: the replicas of this process have different ones.
        """
        names = sorted(self._variables)
        for name in names:
            first, *others = getattr(self._variables[name], "values", [None])
            if any(first.numpy().tobytes() != o.numpy().tobytes() for o in others):
                raise RunError(
                    f"The replicas differ after step {int(self._step.numpy())}. "
                    f"Expected equal copies of every variable. Received: other {name}."
                )
        return checkpoint_files.digest_of(self._variables)

    def restore_last(self) -> bool:
        """Restores the newest readable checkpoint; `False` when there is none yet.

        Damaged ones are named in the log.

        Raises:
            RunError: all are damaged, one is of another model or run, or the run has
                lost them.
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
                f"{', '.join(os.path.basename(path) for path in paths)} to be whole."
            )
        if checkpoint_files.saved(self._best.directory):
            raise RunError(
                f"{self._last.directory} holds no checkpoint, but the run has been "
                "evaluated. Expected the directory as it was left."
            )
        return False

    def require_best(self, averaged: contextlib.AbstractContextManager) -> None:
        """That the best checkpoint is whole and the one that this run has saved.

        If not, it is made again from the checkpoint of the same step, if that is still
        there; otherwise the next evaluation is the best so far. The log says so.

        Args:
            averaged: within it the model has the weights that are evaluated.

        Raises:
            RunError: it is lost, and its results have been reported.
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
                f"The best weights of {self._run} are lost: those of step {step}, of "
                "which its results.json and export are. Expected them in best or "
                f"checkpoints. Without results.json and export/{step} the same command "
                "makes new ones, of its last weights."
            )
        logging.getLogger(__name__).warning("The next evaluation takes its place.")
        self._state["best_top1"].assign(-1.0)
        self._state["evaluated"].assign(int(state["step"]) - 1)

    def _make_best_again(self, step, state, averaged):
        """Whether the checkpoint of a step had the best weights, which are saved."""
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
                logging.getLogger(__name__).warning("Made again from %s.", path)
                return True
        return False


def has_checkpoint(run: pathlib.Path) -> bool:
    """Whether a run has saved anything to go on from."""
    return bool(checkpoint_files.saved(run / "checkpoints"))


def new_state(identity: int = 0) -> dict[str, tf.Variable]:
    """What a run knows besides its model and optimizer: who it is and how far.

    `identity`: `run_directory.Facts.identity` of the run.
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
    """Path and step of the best checkpoint of a run, once it has been looked through.

    Raises:
        RunError: the run has none yet, or it is damaged, or it is not the one that the
            run has saved as its best.
    """
    paths = checkpoint_files.saved(run / "best")
    if not paths:
        raise RunError(
            f"{run / 'best'} holds no checkpoint. Expected a run that has been "
            "evaluated at least once."
        )
    best = paths[0]
    own = _require_own(best, run_directory.read_facts(run).identity)
    last = next(checkpoint_files.states(run / "checkpoints"), own)
    # a run that was killed between the two saves has a newer best one
    expected = own if own["step"] > last["step"] else last
    received = checkpoint_files.short(checkpoint_files.stored_digest(best, "model/"))
    if (
        received != expected["best_digest"]
        or checkpoint_files.step_of(best) != expected["best_step"]
    ):
        raise RunError(
            f"{best} has other weights than the best ones of this run. Expected those "
            f"of step {expected['best_step']}, {expected['best_digest']:014x}. "
            f"Received: {received:014x}."
        )
    return best, checkpoint_files.step_of(best)


def _require_own(path, identity):
    """What a checkpoint says, if it is of the run with this identity."""
    recorded = checkpoint_files.recorded(path)
    if recorded.get("run") != identity:
        raise RunError(
            f"{path} is a checkpoint of another run. Expected one of the run in whose "
            "directory it lies."
        )
    return recorded


def digest(run: pathlib.Path) -> tuple[int, str]:
    """Step of the last checkpoint of a run, and the sha256 of all its variables.

    Of each variable, in the order of their names: name, type, shape and bytes.

    Raises:
        RunError: the directory holds no run, or it has no readable checkpoint.
    """
    run_directory.read_facts(run)
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
    """sha256 of the variables of a model, as `digest` has it of all of a checkpoint."""
    return checkpoint_files.digest_of(
        checkpoint_files.by_path("model", model.variables)
    )


def restore_model(path: str, model) -> None:
    """Restores the variables of a model, and nothing else, from a checkpoint.

    Raises:
        RunError: it is of another model.
    """
    variables = checkpoint_files.by_path("model", model.variables)
    checkpoint_files.require_equal_shapes(path, variables, prefix="model/")
    checkpoint = tf.train.Checkpoint(variables=variables)
    with checkpoint_files.readable(path):
        checkpoint.restore(path).expect_partial()
