"""A short real run of the main job, made once by the command line."""

import pytest


@pytest.fixture(scope="session")
def short_flags(data_dir):
    """Flags of a run of 60 steps on digits."""
    steps = ("--steps=60", "--set=steps_per_loop=20")
    return "--recipe=digits", *steps, f"--data_dir={data_dir}"


@pytest.fixture(scope="session")
def short_run(tmp_path_factory, short_flags, command):
    """Directory and output of a finished run of 60 steps."""
    workdir = tmp_path_factory.mktemp("runs") / "short"
    done = command("-m", "train", *short_flags, f"--workdir={workdir}")
    return workdir, done.stdout
