"""Strategies by name; those that train are in test_main and test_workers."""

import json

import pytest
import tensorflow as tf

from train import strategies
from train.command import UsageError


def cluster(index=0, kind="worker", **jobs):
    jobs = jobs or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "text",
    [
        None,
        "worker",
        "[]",
        "{}",
        cluster(2),
        cluster(-1),
        cluster(kind="chief"),
        cluster(worker=["a:1"], ps=["b:2"]),
    ],
)
def test_cluster_that_is_none_is_a_usage_error(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match="needs the environment variable TF_CONFIG"):
        strategies.create("multi_worker")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("tpu", {}, "Expected --tpu=ADDRESS with --strategy=tpu"),
        ("one", {"tpu": "local"}, "and only there"),
        ("one", {"logical_cpus": 2}, "with --strategy=mirrored only"),
        ("tpu", {"logical_cpus": 2, "tpu": "a"}, "with --strategy=mirrored only"),
    ],
)
def test_arguments_that_do_not_fit_are_usage_errors(name, arguments, words):
    with pytest.raises(UsageError, match=words):
        strategies.create(name, **arguments)


@pytest.mark.parametrize("name", ["one", "mirrored"])
def test_forgotten_cluster_is_a_usage_error(monkeypatch, name):
    monkeypatch.setenv("TF_CONFIG", cluster())
    with pytest.raises(UsageError, match="TF_CONFIG lists several workers"):
        strategies.create(name)


def test_machine_without_a_tpu_says_so(command, tmp_path):
    flags = ["--recipe=digits", "--strategy=tpu", "--tpu=local"]
    done = command("-m", "train", *flags, f"--workdir={tmp_path / 'run'}", expected=1)
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: No TPU at --tpu=local: TPUs not found")
    assert not (tmp_path / "run").exists()


def test_one_process_is_the_chief_and_alone():
    strategy = tf.distribute.get_strategy()
    assert strategies.is_chief(strategy)
    assert strategies.worker(strategy) == (0, 1)
    assert strategies.gather(strategy, 7) == [7]
    with pytest.raises(tf.errors.DataLossError), strategies.together(strategy):
        raise tf.errors.DataLossError(None, None, "of other things it does not speak")
