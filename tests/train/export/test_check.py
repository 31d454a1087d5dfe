"""The process that checks an export: its limits and its exit."""

import time

import pytest
import tensorflow as tf
from fake_exports import answer, make, signatures

from train.cli import RunError
from train.export import check


def endless(images):
    count = tf.while_loop(lambda i: i >= 0, lambda i: [i * 0], [tf.shape(images)[0]])
    return answer(count[0])


def huge(images):
    many = tf.fill((tf.shape(images, tf.int64)[0] * 10**12,), 0.1)
    return answer(tf.shape(images)[0] + tf.cast(tf.reduce_sum(many), tf.int32))


@pytest.mark.parametrize(
    ("images", "limit", "words"),
    [
        (endless, 10, "takes too long in the part .*Expected at most 10 seconds"),
        (huge, 600, "fails in the part .*ResourceExhausted"),
    ],
)
@pytest.mark.slow
def test_model_that_exceeds_limits_is_refused(tmp_path, images, limit, words):
    make(tmp_path / "1", signatures(images))
    with pytest.raises(RunError, match=words):
        list(check.check(tmp_path / "1", time_limit=limit))


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("end", "words"), [("kill -SEGV $$", "SIGSEGV"), ("exit 3", "exit code 3")]
)
def test_crash_of_the_process_is_an_error(tmp_path, monkeypatch, end, words):
    """A model can crash a runtime."""
    crashing = program(tmp_path / "python", f'echo \'{{"part": "loading"}}\'; {end}')
    monkeypatch.setattr(check.sys, "executable", crashing)
    with pytest.raises(RunError, match=f"ended the process .* 'loading'.*{words}"):
        list(check.check(tmp_path))


def test_process_ends_when_the_caller_stops(tmp_path, monkeypatch):
    slow = program(tmp_path / "python", 'echo \'{"line": "a"}\'; exec sleep 600')
    monkeypatch.setattr(check.sys, "executable", slow)
    start, lines = time.monotonic(), check.check(tmp_path)
    assert next(lines) == "a"
    lines.close()
    assert time.monotonic() - start < 60
