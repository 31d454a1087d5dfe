"""Ends a run soon after SIGTERM, with everything saved.

A separate thread receives the signal. The main thread handles signals only between two
Python instructions, and TensorFlow can keep it busy for minutes. An exception from a
handler is lost if it interrupts a destructor. TensorFlow's own handler, used with
several workers, does nothing.
"""

import contextlib
import os
import pathlib
import signal
import threading
import time

from train import cli
from train.engine import strategies

PATIENCE = 300.0  # seconds after the signal to finish and save a training loop


class StopSignal:
    """Ends the process on SIGTERM with exit code 75: at once, or where it can save.

    Nothing changes for the process before `listen` is called.
    """

    def __init__(self):
        self._workdir = self._strategy = self._child = self._listener = None
        self._received = self._is_deferred = False

    def listen(self) -> None:
        """Starts to listen. Call it in the main thread, before other threads start."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def belongs_to(self, workdir: pathlib.Path, strategy) -> None:
        """Sets the run, for the message and the communication between its processes."""
        self._workdir, self._strategy = workdir, strategy

    @contextlib.contextmanager
    def deferred(self):
        """Context that defers the signal to `check` or its end, for at most `PATIENCE`.

        Raises:
            Preempted: At the end, if the signal was received.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._received:
            raise cli.Preempted(_message(self._saved()))

    def check(self) -> None:
        """Ends the run if signalled; all processes must call this at equal steps.

        Raises:
            Preempted: If any process has received the signal.
        """
        if any(strategies.gather(self._strategy, self._received)):
            raise cli.Preempted(_message(self._saved()))

    def call(self, arguments: list[str]) -> int:
        """Runs another program and returns its exit code; the signal ends it, too."""
        self._child = os.posix_spawn(
            arguments[0], arguments, os.environ, setsigmask=[], setpgroup=0
        )
        try:
            _, status = os.waitpid(self._child, 0)
        except BaseException:
            self._end_child()
            raise
        self._child = None
        if self._received:
            self._listener.join()  # it ends this process
        return os.waitstatus_to_exitcode(status)

    def _listen(self):
        signal.sigwait({signal.SIGTERM})
        self._received = True
        saved = self._saved()
        if self._is_deferred:
            time.sleep(PATIENCE)  # usually the process ends before
            saved = f"not saved within {PATIENCE:.0f} s, the last checkpoint is intact"
        self._end_child()
        cli.fail("preempted", _message(saved), cli.PREEMPTED)
        os._exit(cli.PREEMPTED)

    def _end_child(self):
        if self._child is not None:
            os.killpg(self._child, signal.SIGTERM)

    def _saved(self):
        if self._workdir is None or not self._workdir.exists():
            return "nothing has started yet"
        return f"everything is saved in {self._workdir}"


STOP_SIGNAL = StopSignal()  # one per process


def _message(saved):
    return f"{saved}. Start the same command again to resume."
