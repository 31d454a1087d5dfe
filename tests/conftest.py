"""Shared by all tests: backend, seeds, prepared data, commands and a short run."""

import gc
import os
import pathlib
import resource
import subprocess
import sys
import types

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no errors about missing GPUs
# GPUs would round the factors of products to TF32: errors of 3e-4 in attention.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

import filelock
import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Tracing allocates millions of objects that live on: with Python's own thresholds, the
# tests spend an eighth of their time on looking through them for garbage.
gc.set_threshold(100_000, 50, 1000)


def pytest_collection_finish():
    """What is imported by now stays: the garbage collector need not look at it."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=1, help="number of times a run is killed at random"
    )


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1908)


@pytest.fixture(autouse=True)
def _forget_large_models(request):
    """Slow tests build hundreds of networks in one process."""
    yield
    if any(map(request.node.get_closest_marker, ("slow", "long"))):
        keras.utils.clear_session(free_memory=True)


@pytest.fixture(scope="session")
def shared_path(tmp_path_factory):
    """A directory shared by the processes of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def data_dir(shared_path):
    """The directory of tensorflow-datasets in tests; shared, so it is prepared once."""
    path = shared_path / "tensorflow_datasets"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def command():
    """Runs `python ARGUMENTS` from the root; returns exit code, stdout and stderr.

    `largest_file` limits the size of files in bytes, which acts like a full disk.
    """

    def run(*arguments, env=None, cwd=ROOT, expected=0, largest_file=None):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file,) * 2)

        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            preexec_fn=limit if largest_file else None,  # JAX warns about forks
        )
        assert done.returncode == expected, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def call(monkeypatch, capfd):
    """Runs a command of `train` in this process: faster than `command`.

    Returns its stdout and stderr, of which it checks the exit code.
    """
    from absl import app, flags

    from train import cli

    def call(module, *typed, expected=0):
        app.define_help_flags()
        before = {*flags.FLAGS}
        monkeypatch.setattr(sys, "argv", ["command", *map(str, typed)])
        try:
            with pytest.raises(SystemExit) as done:
                cli.run(module.main, getattr(module, "define_flags", dict))
        finally:
            for name in {*flags.FLAGS} - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        printed = capfd.readouterr()
        assert (done.value.code or 0) == expected, printed
        return types.SimpleNamespace(stdout=printed.out, stderr=printed.err)

    return call


@pytest.fixture(scope="session")
def short_flags(data_dir):
    """Flags for a run of 60 steps of a small network on digits."""
    small = ("--set=model.name=resnet8_an", "--steps=60", "--set=steps_per_loop=20")
    return "--recipe=digits", *small, f"--data_dir={data_dir}"


@pytest.fixture(scope="session")
def short_run(shared_path, short_flags, command):
    """Directory and output of a finished run of 60 steps, started as a command."""
    workdir, output = shared_path / "short", shared_path / "short.txt"
    with filelock.FileLock(shared_path / "short.lock"):
        if not output.exists():
            done = command("-m", "train", *short_flags, f"--workdir={workdir}")
            output.write_text(done.stdout)
    return workdir, output.read_text()
