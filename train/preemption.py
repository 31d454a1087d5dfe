"""SIGTERM: a run that is asked to stop saves its state and says so."""

import contextlib
import pathlib
import signal

from train import strategies
from train.command import Preempted


class StopSignal:
    """SIGTERM ends a run with `Preempted`: at once, or where training can save.

    Args:
        workdir: of the run, for the message.
        strategy: of the run; a signal to one of its processes stops all.
    """

    def __init__(self, workdir: pathlib.Path, strategy):
        self._workdir, self._strategy = workdir, strategy
        self._received = self._is_deferred = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number, frame):
        del number, frame
        self._received = True
        if not self._is_deferred:
            self._stop()

    @contextlib.contextmanager
    def deferred(self):
        """Within it the signal waits for `check`."""
        before, self._is_deferred = self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = before

    def check(self) -> None:
        """Ends the run if the signal has come; all processes call it at equal steps.

        Raises:
            Preempted: it has.
        """
        if any(strategies.gather(self._strategy, self._received)):
            self._stop()

    def _stop(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: it must save
        saved = f"everything is saved in {self._workdir}"
        raise Preempted(
            f"{saved if self._workdir.exists() else 'nothing has begun yet'}. Start "
            "the same command again to go on."
        )
