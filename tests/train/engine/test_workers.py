"""Runs with several processes, started from the command line as on several machines."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from train import checkpoint


@pytest.fixture
def start(tmp_path, data_dir):
    """Starts two workers of a run; kills those that still run at the end."""
    processes = []

    def start(name, *flags, flags_of_second=()):
        sockets = [socket.socket() for _ in range(2)]
        for each in sockets:
            each.bind(("localhost", 0))
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        pair = []
        for index, more in enumerate(((), flags_of_second)):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            arguments = [
                *("--recipe=digits", "--set=model.name=resnet8_an"),
                *("--strategy=multi_worker", *flags, *more),
                *(f"--workdir={tmp_path / name}", f"--data_dir={data_dir}"),
            ]
            pair.append(
                subprocess.Popen(
                    [sys.executable, "-m", "train", *arguments],
                    env={**os.environ, "TF_CONFIG": json.dumps(task)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        processes.extend(pair)
        return pair

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"no line with {words}: {process.stderr.read()}")


def finish(processes, codes=(0, 0)):
    """Waits for the processes and returns what they have printed since."""
    outputs = [process.communicate(timeout=900) for process in processes]
    received = tuple(process.returncode for process in processes)
    assert received == codes, outputs
    return outputs


def losses(workdir):
    lines = (workdir / "metrics.csv").read_text().splitlines()
    return np.array([line.split(",")[3] for line in lines if ",train," in line], float)


def values(workdir):
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints"))
    names = sorted(reader.get_variable_to_shape_map())
    own = re.compile(
        r"variables/(?!state\.S(run|best_digest)/)"
    )  # not specific to the run
    return {name: reader.get_tensor(name) for name in names if own.match(name)}


def files(workdir):
    """Returns the files of a run without TensorBoard's, whose names hold the time."""
    paths = (path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if not path.name.startswith("events"))


@pytest.mark.long
def test_replicas_and_workers_train_as_one_device(
    start, command, call, tmp_path, data_dir
):
    """Float32 needs a small learning rate: rounding errors grow with every step."""
    digits = ("--recipe=digits", "--set=model.name=resnet8_an")
    flags = (
        "--steps=20",
        "--set=steps_per_loop=1",
        "--set=model.options={'synchronized': True}",
        "--set=precision=float64",
        "--set=data.shift=1",
        "--set=optimizer.clip_norm=1",
        "--set=optimizer.average=0.9",
    )
    for name, more in (
        ("one", ()),
        ("mirrored", ("--strategy=mirrored", "--logical_cpus=2")),
    ):
        run = (f"--workdir={tmp_path / name}", f"--data_dir={data_dir}")
        command("-m", "train", *digits, *flags, *more, *run)
    outputs = finish(start("workers", *flags))
    digests = [
        [line.split()[-1] for line in output.splitlines() if line.startswith("state")]
        for output, _ in outputs
    ]
    last = call(checkpoint, "digest", tmp_path / "workers").stdout
    assert digests[0] == digests[1] == [last.split()[-1]]
    for name, more in (
        ("one32", ()),
        ("mirrored32", ("--strategy=mirrored", "--logical_cpus=2")),
    ):
        run = (f"--workdir={tmp_path / name}", f"--data_dir={data_dir}", "--noexport")
        small = ("--set=precision=float32", "--set=optimizer.learning_rate=0.0003")
        command("-m", "train", *digits, *flags, *small, *more, *run)
    float32 = [losses(tmp_path / name) for name in ("one32", "mirrored32")]
    np.testing.assert_allclose(*float32, rtol=1e-5)
    one = tmp_path / "one"
    for name in ("mirrored", "workers"):
        other = tmp_path / name
        assert files(other) == files(one)
        np.testing.assert_allclose(losses(other), losses(one), rtol=1e-6)
        received = values(other)
        for variable, value in values(one).items():
            np.testing.assert_allclose(
                received[variable], value, rtol=1e-6, atol=1e-9, err_msg=variable
            )


@pytest.mark.parametrize(
    ("killed", "words"),
    [
        pytest.param(1, "step 40/60  epoch", marks=pytest.mark.slow),
        pytest.param(0, "going on from step", marks=pytest.mark.long),  # the chief
    ],
)
def test_workers_stop_together_and_resume(start, call, tmp_path, killed, words):
    flags = (
        "--steps=60",
        "--set=steps_per_loop=10",
        "--set=evaluate_every=0.5",
        "--set=data.mixup=0.2",
    )
    finish(start("whole", *flags, "--noexport"))

    pair = start("stopped", *flags)
    wait_for(pair[0], "step 20/60  epoch")
    pair[1].send_signal(signal.SIGTERM)  # the worker that is not the chief
    for _, errors in finish(pair, (75, 75)):
        assert "preempted: everything is saved" in errors

    pair = start("stopped", *flags)
    wait_for(pair[0], words)
    pair[killed].kill()
    since = time.monotonic()
    codes = (1, -signal.SIGKILL) if killed else (-signal.SIGKILL, 1)
    left = 1 - killed
    _, errors = finish(pair, codes)[left]
    assert time.monotonic() - since < 120
    assert f"error: Worker {left} of 2 lost the others" in errors.splitlines()[-1]

    (output, _), _ = finish(start("stopped", *flags))
    assert "from scratch" not in output and "as trained" in output
    digests = {
        call(checkpoint, "digest", tmp_path / name).stdout
        for name in ("whole", "stopped")
    }
    assert len(digests) == 1 and "step 60  sha256 " in digests.pop()
    tables = [(tmp_path / n / "metrics.csv").read_text() for n in ("whole", "stopped")]
    assert tables[0] == tables[1]


@pytest.mark.long
def test_sigterm_while_the_chief_exports_ends_the_run_as_preempted(start):
    flags = ("--steps=10", "--set=steps_per_loop=10")
    for stopped, codes in ((0, (75, 75)), (1, (0, 75))):
        pair = start("run", *flags)
        wait_for(
            pair[0], "test     top-1"
        )  # the chief exports and the other worker waits
        pair[stopped].terminate()
        finish(pair, codes)


@pytest.fixture
def start_alone(tmp_path, data_dir):
    """Starts a worker without its partner; returns it and the partner's address."""
    processes = []

    def start_alone(*flags):
        with (
            socket.create_server(("localhost", 0)) as own,
            socket.create_server(("localhost", 0)) as other,
        ):
            ports = own.getsockname()[1], other.getsockname()[1]
        addresses = [f"localhost:{port}" for port in ports]
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker"}}
        task["task"]["index"] = 0
        run = f"--workdir={tmp_path / 'run'}"
        flags = ["--recipe=digits", "--strategy=multi_worker", run, *flags]
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "train",
                    *flags,
                    f"--workdir={tmp_path / 'run'}",
                ],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[0], addresses[1]

    yield start_alone
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_missing_partner_is_named(start_alone):
    process, missing = start_alone("--join_timeout=1")
    ((_, errors),) = finish([process], (1,))
    assert f"no answer from {missing}" in errors.splitlines()[-1]
    assert "within 1 s (--join_timeout)" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_sigterm_ends_a_worker_that_waits_for_its_partner(start_alone):
    process, missing = start_alone()
    wait_for(process, f"waiting  for {missing}")
    process.terminate()
    ((_, errors),) = finish([process], (75,))
    assert "preempted: nothing has started yet" in errors.splitlines()[-1]


@pytest.mark.slow
def test_workers_of_different_runs_do_not_start(start, tmp_path):
    model = "--set=model.name=resnet8_bn"
    pair = start("run", "--steps=5", flags_of_second=[model])
    for _, errors in finish(pair, (1, 1)):
        assert "error: The workers belong to different runs" in errors.splitlines()[-1]
    assert not (tmp_path / "run").exists()
