"""What the check of an export notices, and the images that it sends."""

import io
import json
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from train import odd_images, predict, serve_check
from train.command import RunError


@pytest.fixture
def export(short_run, tmp_path):
    """A copy, to damage."""
    path = tmp_path / "60"
    shutil.copytree(predict.newest_export(short_run[0]), path)
    return path


def save(path, signatures):
    """A SavedModel in the place of an export."""
    module = tf.Module()
    module.f = [
        tf.function(function, input_signature=[spec])
        for function, spec in signatures.values()
    ]
    named = dict(zip(signatures, module.f, strict=True))
    for name in ("saved_model.pb", "fingerprint.pb"):
        (path / name).unlink()
    assets = {p.name: p.read_text() for p in (path / "assets").iterdir()}
    tf.saved_model.save(module, str(path), signatures=named)
    for name, text in assets.items():
        (path / "assets" / name).write_text(text)


IMAGES = tf.TensorSpec((None, 8, 8, 1), tf.uint8, name="images")
BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")


def answer(count, probabilities=None):
    rows = tf.fill((count, 10), 0.1) if probabilities is None else probabilities
    names = tf.tile(tf.constant([list("01234")]), (count, 1))
    return {"probabilities": rows, "classes": names, "scores": rows[:, :5]}


def signatures(images=None, encoded=None):
    return {
        "serving_default": (
            images or (lambda images: answer(tf.shape(images)[0])),
            IMAGES,
        ),
        "image_bytes": (
            encoded or (lambda image_bytes: answer(tf.shape(image_bytes)[0])),
            BYTES,
        ),
        "features": (
            lambda images: {"features": tf.cast(images[:, 0, :, 0], tf.float32)},
            IMAGES,
        ),
    }


def test_directory_that_is_no_export_is_refused(tmp_path, export):
    with pytest.raises(RunError, match="is no SavedModel. Expected a saved_model.pb"):
        list(serve_check.check(tmp_path))
    (export / "assets" / "model.json").write_text("{}")
    with pytest.raises(RunError, match="no export of train.export"):
        list(serve_check.check(export))


def test_operation_that_reads_files_is_refused(export):
    def read(images):
        name = tf.io.read_file(tf.constant("/etc/hostname"))
        return answer(tf.shape(images)[0] + 0 * tf.strings.length(name))

    save(export, signatures(read))
    with pytest.raises(RunError, match="not for servers.*ReadFile"):
        list(serve_check.check(export))


def test_signature_with_another_output_is_refused(export):
    def without_scores(images):
        return {"probabilities": answer(tf.shape(images)[0])["probabilities"]}

    save(export, signatures(without_scores))
    with pytest.raises(RunError, match="serving_default is not as promised"):
        list(serve_check.check(export))


def test_batches_that_change_the_answer_are_noticed(export):
    def of_the_batch(images):
        mean = tf.reduce_mean(tf.cast(images, tf.float32)) / 255
        rows = tf.concat([mean * tf.ones((1, 1)), (1 - mean) / 9 * tf.ones((1, 9))], 1)
        count = tf.shape(images)[0]
        return answer(count, tf.tile(rows, (count, 1)))

    save(export, signatures(of_the_batch))
    with pytest.raises(RunError, match="A batch of . images is not answered"):
        list(serve_check.check(export))


def test_bytes_that_are_no_image_must_be_an_error(export):
    save(export, signatures())
    with pytest.raises(RunError, match="no bytes is no image. Expected an error"):
        list(serve_check.check(export))


def test_images_of_every_kind_are_what_they_say():
    for channels in (1, 3):
        for name, content, equal, is_lossy in odd_images.pictures(channels):
            with PIL.Image.open(io.BytesIO(content)) as image:
                image.load()
                kind, mode, pixels = image.format, image.mode, image.convert("RGB")
            with PIL.Image.open(io.BytesIO(equal)) as image:
                assert image.format == "PNG"
                expected = image.convert("RGB")
            assert name.split()[0] in ("PNG", "JPEG", "BMP") or kind in (
                *("PNG", "JPEG", "GIF"),
            )
            assert ("CMYK" in name) == (mode == "CMYK")
            assert is_lossy == (kind == "JPEG")
            if pixels.size == expected.size and "16-bit" not in name:
                np.testing.assert_allclose(
                    np.asarray(pixels), np.asarray(expected), atol=2 * is_lossy
                )


def test_damaged_images_are_no_images():
    for name, content in odd_images.damaged(3):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_image(content)
        assert name


def test_other_format_that_answers_otherwise_is_noticed(export, monkeypatch):
    (export / "model.onnx").touch()
    real = serve_check.formats.load

    def load(name, path):
        if name == "saved_model":
            return real(name, path)
        return lambda images: np.full((len(images), 10), 0.5, np.float32)

    monkeypatch.setattr(serve_check.formats, "load", load)
    with pytest.raises(RunError, match="onnx answers otherwise than the SavedModel"):
        list(serve_check.check(export))


def test_card_of_an_older_export_is_refused(export):
    file = export / "assets" / "model.json"
    card = json.loads(file.read_text())
    del card["preprocessing"]
    file.write_text(json.dumps(card))
    with pytest.raises(RunError, match="KeyError\\('preprocessing'\\)"):
        list(serve_check.check(export))
