"""Trains the runs of a sweep, several at a time, each in a process of its own."""

import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from train import cli
from train.study.plan import PlannedRun

TAIL = 4096  # bytes of a log that are searched for an error
POLL = 0.5  # seconds


class Schedule:
    """Starts runs in order and keeps a number of them going.

    Args:
        logs: Directory of the logs, one file per run.
        processes: Number of runs at a time.
        report: Called with a line of text about a run.
        command: The program that trains, to which the flags of a run are added.
    """

    def __init__(
        self,
        logs: pathlib.Path,
        processes: int,
        report: Callable[[str], None],
        command: Sequence[str] = (sys.executable, "-m", "train"),
    ):
        self._logs, self._processes, self._report = logs, processes, report
        self._command = command
        self._children, self._lock = set(), threading.Lock()
        self._is_stopping = False

    def execute(
        self, runs: Sequence[PlannedRun]
    ) -> Iterator[tuple[PlannedRun, int, float]]:
        """Yields each run when it has ended, with its exit code and its seconds.

        Raises:
            Preempted: If this process receives SIGTERM. All runs have saved, as they
                have after Ctrl-C.
        """
        with (
            self._stopping_runs(),
            concurrent.futures.ThreadPoolExecutor(self._processes) as pool,
        ):
            waiting = {pool.submit(self._train, run): run for run in runs}
            try:
                for future in concurrent.futures.as_completed(waiting):
                    yield waiting[future], *future.result()
            except BaseException:
                self._stop()
                for future in waiting:
                    future.cancel()
                raise

    def log(self, run: PlannedRun) -> pathlib.Path:
        return self._logs / f"{run.name}.log"

    def error(self, run: PlannedRun) -> str:
        """Returns the last line of a run's log that reports an error, or the last."""
        with self.log(run).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
            lines = file.read().decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if "rror: " in line]
        return [*(errors or lines or [""])][-1]

    @contextlib.contextmanager
    def _stopping_runs(self):
        def preempted(*_):
            raise cli.Preempted(
                f"everything is saved in {self._logs.parent}. Start the same command "
                "again to resume."
            )

        before = signal.signal(signal.SIGTERM, preempted)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _stop(self):
        with self._lock:
            self._is_stopping = True
            for child in self._children:
                child.send_signal(signal.SIGTERM)  # they save, and end with 75

    def _train(self, run):
        with (self._logs / f"{run.name}.lock").open("w") as lock:
            if not self._locked(lock, run):
                return cli.PREEMPTED, 0.0
            return self._train_locked(run, lock)

    def _locked(self, lock, run):
        """Waits for a run that a killed sweep has left, which holds the same lock."""
        is_waiting = False
        while not self._is_stopping:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if not is_waiting:
                    self._report(
                        f"waiting  {run.name}, left by a sweep that was killed"
                    )
                is_waiting = True
                time.sleep(POLL)
        return False

    def _train_locked(self, run, lock):
        start = time.monotonic()
        threads = str(max((os.cpu_count() or 1) // self._processes, 1))
        limits = {
            name: os.environ.get(name, threads)
            for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        }
        with self.log(run).open("ab") as log:
            with self._lock:
                if self._is_stopping:
                    return cli.PREEMPTED, 0.0
                self._report(f"started  {run.name}")
                child = subprocess.Popen(
                    [*self._command, *run.flags],
                    env={**os.environ, **(limits if self._processes > 1 else {})},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock.fileno()],  # it holds the lock to its end
                    start_new_session=True,  # Ctrl-C reaches it once, as SIGTERM
                )
                self._children.add(child)
            code = child.wait()
            with self._lock:
                self._children.discard(child)
        return code, time.monotonic() - start
