"""Several runs at a time, in processes of their own."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from train import config
from train.study import plan, schedule


def a_run(directory, name, *flags):
    settings = config.Recipe(config.Model("resnet8_an"), config.Data("digits"))
    return plan.PlannedRun(directory / name, "digits", 0, (), settings, flags)


def execute(directory, program, flags, processes=1):
    runs = [
        a_run(directory, f"run{n}", *map(str, each)) for n, each in enumerate(flags)
    ]
    lines = []
    command = sys.executable, "-c", textwrap.dedent(program)
    trained = schedule.Schedule(directory, processes, lines.append, command)
    ended = {run.name: code for run, code, _ in trained.execute(runs)}
    return trained, runs, lines, ended


def test_runs_have_their_flags_logs_and_exit_codes(tmp_path):
    program = """
        import sys
        print("some output")
        if sys.argv[1] != "0":
            print("error: it broke. Received: a problem.", file=sys.stderr)
            print("more", file=sys.stderr)
        sys.exit(int(sys.argv[1]))
    """
    trained, runs, lines, ended = execute(tmp_path, program, [[0], [1], [75]])
    assert ended == {"run0": 0, "run1": 1, "run2": 75}
    assert lines == [f"started  {run.name}" for run in runs]
    assert trained.log(runs[0]).read_text() == "some output\n"
    assert trained.error(runs[0]) == "some output"
    assert trained.error(runs[1]) == "error: it broke. Received: a problem."


def test_as_many_runs_go_on_as_there_are_processes(tmp_path):
    program = """
        import os, pathlib, sys, time
        mine = pathlib.Path(sys.argv[1], str(os.getpid()))
        mine.touch()
        time.sleep(0.6)
        print(len(list(mine.parent.iterdir())))
        mine.unlink()
    """
    (tmp_path / "alive").mkdir()
    trained, runs, *_ = execute(tmp_path, program, [[tmp_path / "alive"]] * 4, 2)
    together = [int(trained.log(run).read_text()) for run in runs]
    assert max(together) == 2


def test_run_that_a_killed_sweep_has_left_is_waited_for(tmp_path):
    program = """
        import pathlib, sys
        sys.path.insert(0, ".")
        from train import config
        from train.study import plan, schedule
        here = pathlib.Path(sys.argv[1])
        settings = config.Recipe(config.Model("a"), config.Data("digits"))
        run = plan.PlannedRun(here / "run0", "digits", 0, (), settings, (str(here),))
        child = "import pathlib, sys, time; time.sleep(2);"
        child += "pathlib.Path(sys.argv[1], 'ended').touch()"
        command = sys.executable, "-c", child
        for _ in schedule.Schedule(here, 1, print, command).execute([run]):
            pass
    """
    killed = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path]
    )
    while not (tmp_path / "run0.log").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    killed.kill()
    killed.wait()
    seen = "import pathlib, sys; print(pathlib.Path(sys.argv[1], 'ended').exists())"
    trained, (run,), lines, ended = execute(tmp_path, seen, [[tmp_path]])
    assert trained.log(run).read_text() == "True\n" and ended == {"run0": 0}
    assert lines == [
        "waiting  run0, left by a sweep that was killed",
        "started  run0",
    ]


STOPPED = """
import pathlib, signal, sys
from train import cli, config
from train.study import plan, schedule

child = '''
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
'''
here = pathlib.Path(sys.argv[1])
settings = config.Recipe(config.Model("resnet8_an"), config.Data("digits"))
runs = [
    plan.PlannedRun(here / name, "digits", 0, (), settings, (str(here),))
    for name in ("one", "two")
]
trained = schedule.Schedule(here, 1, print, (sys.executable, "-c", child))

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it

def main(arguments):
    for run, code, _ in trained.execute(runs):
        print("ended", run.name)

cli.run(main, lambda: None)
"""


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGTERM, 75), (signal.SIGINT, 1)]
)
def test_stopped_sweep_lets_its_runs_save(tmp_path, number, expected):
    program = tmp_path / "sweep.py"
    program.write_text(STOPPED)
    process = subprocess.Popen(
        [sys.executable, program, tmp_path],
        env={**schedule.os.environ, "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == expected, err
    assert (tmp_path / "saved").exists()
    assert out.count("started") == 1 and "ended two" not in out
