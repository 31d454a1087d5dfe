"""SIGTERM in separate processes; test_main and test_workers cover whole runs."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

BEGIN = """
import os, pathlib, signal, sys, time
from train import cli
from train.engine import preemption, strategies
stop_signal = preemption.StopSignal()
stop_signal.listen()
strategies.gather = lambda strategy, number: [number]
"""


@pytest.fixture
def start():
    """Starts a program after `BEGIN` and waits until it prints a line."""
    processes = []

    def start(program):
        process = subprocess.Popen(
            [sys.executable, "-c", BEGIN + textwrap.dedent(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        process.first_line = process.stdout.readline()
        assert process.first_line, process.communicate()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_signal_ends_the_process_at_once(start):
    process = start("print('ready', flush=True); time.sleep(60)")
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert errors == (
        "preempted: nothing has started yet. Start the same command again to resume.\n"
    )


def test_signal_is_received_despite_handlers_and_ignored_exceptions(start):
    process = start(
        """
        class Deaf:
            def __del__(self):
                time.sleep(60)
        signal.signal(signal.SIGTERM, lambda *_: None)
        print("ready", flush=True)
        Deaf()
        """
    )
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_deferred_signal_waits_for_a_check_and_reports_the_directory(start, tmp_path):
    process = start(
        f"""
        stop_signal.belongs_to(pathlib.Path({str(tmp_path)!r}), None)
        try:
            with stop_signal.deferred():
                print("ready", flush=True)
                for _ in range(600):
                    time.sleep(0.1)
                    stop_signal.check()
        except cli.Preempted as error:
            sys.exit(f"saved, {{error}}")
        """
    )
    for _ in range(20):  # only the first one counts
        process.terminate()
    _, errors = process.communicate(timeout=20)
    assert errors.startswith(f"saved, everything is saved in {tmp_path}")
    assert process.returncode == 1


def test_end_of_a_deferral_checks_the_signal(start):
    process = start(
        """
        try:
            with stop_signal.deferred():
                print("ready", flush=True)
                time.sleep(2)
        except cli.Preempted:
            sys.exit(75)
        time.sleep(60)
        """
    )
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 75


def test_deferral_has_a_time_limit(start):
    process = start(
        """
        preemption.PATIENCE = 1
        with stop_signal.deferred():
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75 and "not saved within 1 s" in errors


def test_called_program_ends_with_its_caller_on_the_signal(start):
    process = start(
        """
        write = cli.fail
        cli.fail = lambda *words: (time.sleep(1), write(*words))
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        stop_signal.call([sys.executable, "-c", code])
        """
    )
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 75
    for _ in range(100):
        try:
            os.kill(int(process.first_line), 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("it still runs")


def test_exit_code_of_a_program_is_returned(start):
    process = start(
        """
        call = lambda code: stop_signal.call([sys.executable, "-c", code])
        print(call("raise SystemExit(3)"), call("import os; os.kill(os.getpid(), 9)"))
        """
    )
    assert process.first_line == f"3 {-signal.SIGKILL}\n"
