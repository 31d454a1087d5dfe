"""The C program, built with the command in its first comment, on a real export."""

import pytest
import tensorflow as tf
from consumers import build_program, consume, run_program
from served import assert_same, guesses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    return build_program(tmp_path_factory.mktemp("consumer"))


def test_c_program_prints_the_answers_of_the_signature(
    consumer, export, images, contents, signature
):
    for image, content in zip(images, contents, strict=True):
        received = consume(consumer, export, image)
        assert_same([received], guesses(signature([content])))


def test_c_program_reports_errors(consumer, export, images, tmp_path):
    files = {
        "cut.png": images[0].read_bytes()[:40],
        "text.png": b"no picture" * 10_000,  # longer than one read
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
        done = run_program(consumer, *arguments)
        assert done.returncode == code and words in done.stderr, done
        assert done.stdout == ""


def test_c_program_reports_a_missing_signature(consumer, images, tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec((), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=module.f)
    done = run_program(consumer, tmp_path / "other", images[0])
    assert done.returncode == 1
    assert "consumer: the model has no signature: image_bytes" in done.stderr


def test_c_program_has_no_leaks_and_no_undefined_behaviour(export, images, tmp_path):
    sanitized = build_program(tmp_path, flags="-g -fsanitize=address,undefined")
    (tmp_path / "text.png").write_bytes(b"no picture" * 10_000)
    consume(sanitized, export, images[0])
    for arguments in ([export, tmp_path / "text.png"], [tmp_path, images[0]]):
        done = run_program(sanitized, *arguments)
        assert done.returncode == 1 and "Sanitizer" not in done.stderr, done.stderr
