"""Strategies by name; test_main and test_workers train with them."""

import json

import pytest
import tensorflow as tf

from train.cli import UsageError
from train.engine import strategies


def cluster(index=0, kind="worker", **jobs):
    jobs = jobs or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize("text", [None, "", "{}", '{"cluster": {}}'])
def test_missing_cluster_is_a_usage_error(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="needs the environment variable TF_CONFIG"):
        strategies.create("multi_worker")


@pytest.mark.parametrize("name", ["multi_worker", "one", "mirrored"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker", "Expecting value"),
        ("[" * 100_000, "recursion depth"),
        ("9" * 5000, "Exceeds the limit"),
        ("[]", "TF_CONFIG must be an object, but is \\[\\]"),
        ("null", "TF_CONFIG must be an object, but is null"),
        ("5", "TF_CONFIG must be an object, but is 5"),
        ('{"cluster": 5}', "cluster must be an object, but is 5"),
        ('{"cluster": null}', "cluster must be an object, but is null"),
        ('{"cluster": "a:1"}', "cluster must be an object"),
        ('{"cluster": {"worker": ["a:1"]}}', "task must be an object, but is null"),
        (cluster(2), "no worker with index 2"),
        (cluster(-1), "no worker with index -1"),
        (cluster(10**30), "no worker with index 1000"),
        (cluster(1e999), "task.index must be a whole number, but is Infinity"),
        (cluster(0.0), "task.index must be a whole number, but is 0.0"),
        (cluster("0"), 'task.index must be a whole number, but is "0"'),
        (cluster(True), "task.index must be a whole number, but is true"),
        (cluster(None), "task.index must be a whole number, but is null"),
        (cluster([0]), "task.index must be a whole number"),
        (cluster(kind="chief"), "no chief with index 0"),
        (cluster(kind=["worker"]), "task.type must be a string"),
        (cluster(kind=None), "task.type must be a string, but is null"),
        (cluster(worker=["a:1"], ps=["b:2"]), "tasks of other kinds: worker, ps"),
        (cluster(worker=[]), "no worker with index 0"),
        (cluster(worker="a:1"), 'cluster.worker must be a list, but is "a:1"'),
        (cluster(worker={"0": "a:1"}), "cluster.worker must be a list"),
        (cluster(worker=None), "cluster.worker must be a list, but is null"),
        (cluster(worker=[1, 2]), "an address of cluster.worker must be a string"),
        (cluster(worker=[["a:1"]]), "an address of cluster.worker must be a string"),
        (cluster(worker=["a:1", None]), "an address of cluster.worker must be"),
        (cluster(worker=["a"]), "'a' is not HOST:PORT"),
        (cluster(worker=["a:"]), "'a:' is not HOST:PORT"),
        (cluster(worker=[":1"]), "':1' is not HOST:PORT"),
        (cluster(worker=["a:0"]), "'a:0' is not HOST:PORT"),
        (cluster(worker=["a:65536"]), "'a:65536' is not HOST:PORT"),
        (cluster(worker=["a:٣"]), "is not HOST:PORT"),
        (cluster(worker=["a:-1"]), "is not HOST:PORT"),
        (cluster(worker=["a b:1"]), "is not HOST:PORT"),
        (cluster(worker=["grpc://a:1"]), "is not HOST:PORT"),
        (cluster(worker=["a..b:1"]), "'a..b:1' is not HOST:PORT"),
        (cluster(worker=[f"{'a' * 70}:1"]), "is not HOST:PORT"),
        (cluster(worker=["\ud800:1"]), "is not HOST:PORT"),
        (f'{cluster()[:-1]}, "rpc_layer": 5}}', "its rpc_layer is 5"),
        (f'{cluster()[:-1]}, "rpc_layer": "foo"}}', 'its rpc_layer is "foo"'),
        (cluster(worker=["a:1", "a:1"]), "a:1 is listed twice"),
        (cluster(worker=["host:80", "HOST:080"]), "HOST:080 is listed twice"),
        (cluster(chief=["a:1"], worker=["a:1"]), "a:1 is listed twice"),
        (cluster(chief=["a:1", "b:1"]), "more than one chief"),
    ],
)
def test_invalid_cluster_is_a_usage_error(monkeypatch, name, text, words):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=f"TF_CONFIG cannot be used.*{words}"):
        strategies.create(name)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("tpu", {}, "Expected --tpu=ADDRESS with --strategy=tpu"),
        ("one", {"tpu": "local"}, "and only there"),
        ("one", {"logical_cpus": 2}, "with --strategy=mirrored only"),
        ("tpu", {"logical_cpus": 2, "tpu": "a"}, "with --strategy=mirrored only"),
        ("one", {"join_timeout": float("nan")}, "seconds in --join_timeout"),
    ],
)
def test_arguments_that_do_not_match_are_usage_errors(name, arguments, words):
    with pytest.raises(UsageError, match=words):
        strategies.create(name, **arguments)


@pytest.mark.parametrize("name", ["one", "mirrored"])
def test_cluster_with_another_strategy_is_a_usage_error(monkeypatch, name):
    monkeypatch.setenv("TF_CONFIG", cluster())
    with pytest.raises(UsageError, match="TF_CONFIG lists several workers"):
        strategies.create(name)


@pytest.mark.slow
def test_machine_without_a_tpu_is_reported(command, tmp_path):
    flags = ["--recipe=digits", "--strategy=tpu", "--tpu=local"]
    done = command("-m", "train", *flags, f"--workdir={tmp_path / 'run'}", expected=1)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: No TPU at --tpu=local: TPUs not found")
    assert not (tmp_path / "run").exists()


def test_single_process_is_the_chief():
    strategy = tf.distribute.get_strategy()
    assert strategies.is_chief(strategy)
    assert strategies.worker(strategy) == (0, 1)
    assert strategies.gather(strategy, 7) == [7]
    with pytest.raises(tf.errors.DataLossError), strategies.together(strategy):
        raise tf.errors.DataLossError(None, None, "an error of another kind")


def test_worker_that_waits_in_vain_reports_it(command):
    """A partner may have died, or another program may listen at its address."""
    program = (
        "from train.engine import strategies; strategies.JOINING = 1.0\n"
        "with strategies._watched('error: nobody came'):\n"
        "    sum(range(10**12))  # holds Python's lock, as TensorFlow does\n"
    )
    done = command("-c", program, expected=1)
    assert done.stderr.splitlines()[-1] == "error: nobody came"
    assert "most recent call" not in done.stderr
