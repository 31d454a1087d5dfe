"""What all tests share: the backend, seeds, prepared data, and commands."""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1908)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where tensorflow-datasets keeps its files in tests; shared, to prepare once."""
    return tmp_path_factory.mktemp("tensorflow_datasets")


@pytest.fixture(scope="session")
def command():
    """Runs `python ARGUMENTS` from the root; returns exit code, stdout and stderr."""

    def run(*arguments, env=None, cwd=ROOT, expected=0):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == expected, done.stdout + done.stderr
        return done

    return run
