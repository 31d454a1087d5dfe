"""The C program, compiled with the command in its first comment, on a real export."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import ROOT
from served import assert_same, guesses


def build(directory, flags="-O2"):
    """Builds consumer.c in `directory` with the command in its first comment."""
    source = (ROOT / "examples" / "serving" / "consumer.c").read_text()
    (block,) = re.findall(r"^     TF=.*?\n\n", source, re.MULTILINE | re.DOTALL)
    assert "-Wall -Wextra -Werror" in block and " -O2 " in block
    block = block.replace(" -O2 ", f" {flags} ")
    (directory / "examples").symlink_to(ROOT / "examples")
    python = pathlib.Path(sys.executable).parent
    path = f"{python}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=directory,
        env={**os.environ, "PATH": path},
        check=True,
    )
    return directory / "consumer"


def consume(program, *arguments):
    """Runs the program with nothing of ours: no variables, no Python."""
    return subprocess.run(
        [program, *arguments],
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    return build(tmp_path_factory.mktemp("consumer"))


def test_c_program_prints_what_the_signature_answers(
    consumer, export, images, contents, signature
):
    for image, content in zip(images, contents, strict=True):
        done = consume(consumer, export, image)
        assert done.returncode == 0, done.stderr
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        received = [(name, float(score)) for name, score in lines]
        assert_same([received], guesses(signature([content])))


def test_c_program_ends_with_a_message(consumer, export, images, tmp_path):
    files = {
        "cut.png": images[0].read_bytes()[:40],
        "text.png": b"no picture" * 10_000,  # longer than a piece that is read
        "empty.png": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    refused = "consumer: the model does not take the image"
    for arguments, code, words in (
        ([export, tmp_path / "cut.png"], 1, refused),
        ([export, tmp_path / "text.png"], 1, refused),
        ([export, tmp_path / "empty.png"], 1, refused),
        ([export, tmp_path / "none.png"], 1, "No such file"),
        ([export, tmp_path], 1, "Is a directory"),
        ([tmp_path, images[0]], 1, "Could not find SavedModel"),
        ([damaged, images[0]], 1, f"consumer: {damaged}"),
        ([export], 2, "usage"),
    ):
        done = consume(consumer, *arguments)
        assert done.returncode == code and words in done.stderr, done
        assert done.stdout == ""


def test_c_program_needs_the_signature(consumer, images, tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec((), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=module.f)
    done = consume(consumer, tmp_path / "other", images[0])
    assert done.returncode == 1
    assert "consumer: the model has no signature: image_bytes" in done.stderr


def test_c_program_has_no_leaks_and_no_undefined_behaviour(export, images, tmp_path):
    sanitized = build(tmp_path, flags="-g -fsanitize=address,undefined")
    (tmp_path / "text.png").write_bytes(b"no picture" * 10_000)
    assert consume(sanitized, export, images[0]).returncode == 0
    for arguments in ([export, tmp_path / "text.png"], [tmp_path, images[0]]):
        done = consume(sanitized, *arguments)
        assert done.returncode == 1 and "Sanitizer" not in done.stderr, done.stderr
