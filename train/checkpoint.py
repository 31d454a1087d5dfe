"""What a run directory holds, what a checkpoint holds, and when they may be restored.

RUN/config.json        what the run is (`train.fingerprint`)
RUN/checkpoints/       the last checkpoints, to go on from
RUN/best/              the checkpoint that is best on the validation images
RUN/metrics.csv        one row for each line of progress and each evaluation
RUN/results.json       the test images, read once, with the best checkpoint
RUN/train, validation  TensorBoard summaries
RUN/export/STEP/       the SavedModel

    python -m train.checkpoint digest RUN

prints the step of the last checkpoint and the sha256 of all its variables: equal for
runs that are equal to the last bit.
"""

import contextlib
import hashlib
import logging
import os
import pathlib

import tensorflow as tf

from train import command, fingerprint
from train.command import RunError
from train.paths import literal, require_literal

KEEP = 3


# What a full disk, missing rights or a lost worker raise: no fault of a checkpoint.
ELSEWHERE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)


class DamagedError(RunError):
    """A checkpoint cannot be read."""


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
        self._model = _by_path("model", model.variables)
        self._variables = {
            **self._model,
            **_by_path("optimizer", optimizer.variables, optimizer.name),
            **{f"state/{name}": variable for name, variable in state.items()},
        }
        self._checkpoint = tf.train.Checkpoint(variables=self._variables)
        for name in ("checkpoints", "best"):
            _drop_damaged_list(run / name, writes)
        self._last, self._best = (
            tf.train.CheckpointManager(self._checkpoint, str(run / name), keep)
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
            self._state["best_digest"].assign(short(_digest(self._model)))
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
        return _digest(self._variables)

    def restore_last(self) -> bool:
        """Restores the newest readable checkpoint; `False` when there is none yet.

        Damaged ones are named in the log.

        Raises:
            RunError: all are damaged, one is of another model or run, or the run has
                lost them.
        """
        paths = _saved(self._last.directory)
        for path in paths:
            try:
                _require_equal_shapes(path, self._variables)
                _require_own(path, int(self._state["run"].numpy()))
                with _readable(path):
                    restored = self._checkpoint.restore(path)
            except DamagedError as error:
                logging.getLogger(__name__).warning("%s", error)
                continue
            restored.assert_existing_objects_matched()
            return True
        if paths:
            raise RunError(
                f"{self._last.directory} holds no readable checkpoint. Expected one of "
                f"{', '.join(os.path.basename(path) for path in paths)} to be whole."
            )
        if _saved(self._best.directory):
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
        copies = [path for path in _saved(self._last.directory) if _step(path) == step]
        last = [variable.numpy() for variable in self._variables.values()]
        for path in copies:
            try:
                _require_equal_shapes(path, self._variables)
                with _readable(path):
                    self._checkpoint.restore(path)
            except RunError as error:
                logging.getLogger(__name__).warning("%s", error)
                continue
            with averaged:
                is_best = short(_digest(self._model)) == state["best_digest"]
                if is_best:
                    self.save(best=True)
            for variable, value in zip(self._variables.values(), last, strict=True):
                variable.assign(value)
            if is_best:
                logging.getLogger(__name__).warning("Made again from %s.", path)
                return True
        return False


def _saved(directory) -> list[str]:
    """Paths of the checkpoints in a directory, the newest first.

    By their files, and by the list that TensorFlow keeps beside them once they are
    whole: a file that is missing is damage. Without a file and not in the list are
    those that a kill has cut short.
    """
    require_literal(directory, "of the run")
    directory = pathlib.Path(directory)
    names = {path.stem for path in directory.glob("*-*.index")} | _listed(directory)
    paths = (str(directory / name) for name in names)
    return sorted(paths, key=_step, reverse=True)


def _listed(directory) -> set[str]:
    """Names in TensorFlow's list, a text file."""
    try:
        state = tf.train.get_checkpoint_state(str(directory))
    except UnicodeDecodeError:
        return set()
    paths = state.all_model_checkpoint_paths if state else ()
    return {os.path.basename(path) for path in paths}


def _drop_damaged_list(directory, writes):
    """TensorFlow's list is only a help, but its manager does not start with noise."""
    file = directory / "checkpoint"
    if not file.is_file():
        return
    try:
        file.read_text()
    except UnicodeDecodeError:
        logging.getLogger(__name__).warning("%s is damaged and not used", file)
        if writes:
            file.unlink()


def _step(path) -> int:
    return int(path.rpartition("-")[2])


def has_checkpoint(run: pathlib.Path) -> bool:
    """Whether a run has saved anything to go on from."""
    return bool(_saved(run / "checkpoints"))


def new_state(identity: int = 0) -> dict[str, tf.Variable]:
    """What a run knows besides its model and optimizer: who it is and how far.

    `identity`: `train.fingerprint.Facts.identity` of the run.
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
    paths = _saved(run / "best")
    if not paths:
        raise RunError(
            f"{run / 'best'} holds no checkpoint. Expected a run that has been "
            "evaluated at least once."
        )
    best = paths[0]
    own = _require_own(best, fingerprint.read_facts(run).identity)
    last = next(_states(run / "checkpoints"), own)
    # a run that was killed between the two saves has a newer best one
    expected = own if own["step"] > last["step"] else last
    received = short(_stored_digest(best, "model/"))
    if received != expected["best_digest"] or _step(best) != expected["best_step"]:
        raise RunError(
            f"{best} has other weights than the best ones of this run. Expected those "
            f"of step {expected['best_step']}, {expected['best_digest']:014x}. "
            f"Received: {received:014x}."
        )
    return best, _step(best)


def _require_own(path, identity):
    """What a checkpoint says, if it is of the run with this identity."""
    recorded = _recorded(path)
    if recorded.get("run") != identity:
        raise RunError(
            f"{path} is a checkpoint of another run. Expected one of the run in whose "
            "directory it lies."
        )
    return recorded


def _states(directory):
    """What the readable checkpoints in a directory say, the newest first."""
    for path in _saved(directory):
        with contextlib.suppress(DamagedError):
            yield _recorded(path)


def _recorded(path):
    """The state of the run in a checkpoint: `new_state`, as numbers."""
    with _readable(path):
        reader = tf.train.load_checkpoint(path)
        names = {_plain(name): name for name in reader.get_variable_to_shape_map()}
        return {
            name.removeprefix("state/"): reader.get_tensor(names[name]).item()
            for name in names
            if name.startswith("state/")
        }


def _stored_digest(path, prefix):
    """As `_digest`, of the variables in a checkpoint whose names begin so."""
    with _readable(path):
        reader = tf.train.load_checkpoint(path)
        names = {_plain(name): name for name in reader.get_variable_to_shape_map()}
        return _sha256(
            (name, reader.get_tensor(names[name]))
            for name in sorted(names)
            if name and name.startswith(prefix)
        )


def digest(run: pathlib.Path) -> tuple[int, str]:
    """Step of the last checkpoint of a run, and the sha256 of all its variables.

    Of each variable, in the order of their names: name, type, shape and bytes.

    Raises:
        RunError: the directory holds no run, or it has no readable checkpoint.
    """
    fingerprint.read_facts(run)
    paths = _saved(run / "checkpoints")
    if not paths:
        raise RunError(
            f"{run / 'checkpoints'} holds no checkpoint. Expected a run that has "
            "saved one."
        )
    return _step(paths[0]), _stored_digest(paths[0], "")


def network_digest(model) -> str:
    """sha256 of the variables of a model, as `digest` has it of all of a checkpoint."""
    return _digest(_by_path("model", model.variables))


def short(sha256: str) -> int:
    """The beginning of a digest, as a number that fits into int64."""
    return int(sha256[:14], 16)


def _digest(variables):
    return _sha256((name, variables[name].numpy()) for name in sorted(variables))


def _sha256(values):
    """Of pairs of names and arrays."""
    sha256 = hashlib.sha256()
    for name, value in values:
        sha256.update(f"{name} {value.dtype} {value.shape}\n".encode())
        sha256.update(value.tobytes())
    return sha256.hexdigest()


def _plain(name):
    """The path of a variable in a checkpoint; empty for what is no variable of ours."""
    prefix, suffix = "variables/", "/.ATTRIBUTES/VARIABLE_VALUE"
    if not name.startswith(prefix):
        return ""
    return name.removeprefix(prefix).removesuffix(suffix).replace(".S", "/")


def restore_model(path: str, model) -> None:
    """Restores the variables of a model, and nothing else, from a checkpoint.

    Raises:
        RunError: it is of another model.
    """
    variables = _by_path("model", model.variables)
    _require_equal_shapes(path, variables, prefix="model/")
    checkpoint = tf.train.Checkpoint(variables=variables)
    with _readable(path):
        checkpoint.restore(path).expect_partial()


@contextlib.contextmanager
def _readable(path):
    try:
        yield
    except ELSEWHERE:
        raise
    except (tf.errors.OpError, IndexError, ValueError) as error:
        raise DamagedError(f"{path} is a damaged checkpoint: {error}") from error


def _by_path(kind, variables, owner=""):
    """Variables by path, without what Keras numbers through a process.

    That is the name of their owner, and those of the seeds of random layers.
    """
    named, seeds = {}, 0
    for variable in variables:
        path = variable.path.removeprefix(f"{owner}/")
        if path.endswith("seed_generator_state"):
            path, seeds = f"seed_{seeds}", seeds + 1
        named[f"{kind}/{path}"] = variable.value
    return named


def _require_equal_shapes(path, variables, prefix=""):
    """Compares names and shapes before a restore touches anything."""
    with _readable(path):
        listed = tf.train.list_variables(path)
    stored = {_plain(name): shape for name, shape in listed if _plain(name)}
    stored = {name: shape for name, shape in stored.items() if name.startswith(prefix)}
    expected = {name: v.shape.as_list() for name, v in variables.items()}
    for name, old, new in fingerprint.differences(expected, stored):
        raise RunError(
            f"{path} is a checkpoint of another model. Expected {name} of shape {old}. "
            f"Received: {new}."
        )


def main(arguments):
    if len(arguments) != 2 or arguments[0] != "digest":
        raise command.UsageError(
            f"Expected: digest RUN. Received: {' '.join(arguments) or 'none'}."
        )
    step, sha256 = digest(pathlib.Path(literal(arguments[1], "RUN")))
    print(f"step {step}  sha256 {sha256}")


if __name__ == "__main__":
    command.run(main, lambda: None)
