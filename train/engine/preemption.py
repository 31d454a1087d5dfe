"""SIGTERM: a run that is asked to stop ends soon, with everything saved.

A thread of its own hears the signal. The main thread would hear it between two steps of
Python only, and TensorFlow keeps it for minutes; what a handler raises is lost where it
interrupts a destructor; and TensorFlow's own handler, of several workers, does nothing.
"""

import contextlib
import os
import pathlib
import signal
import threading
import time

from train import cli
from train.engine import strategies

PATIENCE = 300.0  # seconds after the signal for a loop of training and its saving


class StopSignal:
    """SIGTERM ends the process with exit code 75: at once, or where training can save.

    Nothing changes for the process before it listens.
    """

    def __init__(self):
        self._workdir = self._strategy = self._child = None
        self._received = self._is_deferred = False

    def listen(self) -> None:
        """To be called in the main thread, before others that would take the signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=self._listen, daemon=True).start()

    def belongs_to(self, workdir: pathlib.Path, strategy) -> None:
        """Names the run, for the message and for what its processes tell each other."""
        self._workdir, self._strategy = workdir, strategy

    @contextlib.contextmanager
    def deferred(self):
        """Within it the signal waits for `check` or for the end, but not for ever.

        Raises:
            Preempted: at the end, if the signal has come.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._received:
            raise cli.Preempted(_message(self._saved()))

    def check(self) -> None:
        """Ends the run if the signal has come; all processes call it at equal steps.

        Raises:
            Preempted: it has.
        """
        if any(strategies.gather(self._strategy, self._received)):
            raise cli.Preempted(_message(self._saved()))

    def call(self, arguments: list[str]) -> int:
        """Exit code of another program; the signal ends it, too."""
        self._child = os.posix_spawn(
            arguments[0], arguments, os.environ, setsigmask=[], setpgroup=0
        )
        try:
            _, status = os.waitpid(self._child, 0)
        except BaseException:
            self._end_child()
            raise
        self._child = None
        return os.waitstatus_to_exitcode(status)

    def _listen(self):
        signal.sigwait({signal.SIGTERM})
        self._received = True
        saved = self._saved()
        if self._is_deferred:
            time.sleep(PATIENCE)  # by then the process has ended, as a rule
            saved = f"not saved within {PATIENCE:.0f} s, the last checkpoint is whole"
        self._end_child()
        cli.fail("preempted", _message(saved), cli.PREEMPTED)
        os._exit(cli.PREEMPTED)

    def _end_child(self):
        if self._child is not None:
            os.killpg(self._child, signal.SIGTERM)

    def _saved(self):
        if self._workdir is None or not self._workdir.exists():
            return "nothing has begun yet"
        return f"everything is saved in {self._workdir}"


STOP_SIGNAL = StopSignal()  # of this process


def _message(saved):
    return f"{saved}. Start the same command again to go on."
