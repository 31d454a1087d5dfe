"""Errors that the check of an export detects, and the images that it sends."""

import io
import json
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from fake_exports import answer, save, signatures
from tensorflow.core.protobuf import saved_model_pb2

from train.cli import RunError
from train.export import answers, odd_images, runtimes
from train.input import augment


@pytest.fixture
def export(short_run, tmp_path):
    """A copy of an export that tests may damage."""
    path = tmp_path / "60"
    shutil.copytree(runtimes.newest_export(short_run[0]), path)
    return path


def test_directory_without_an_export_is_refused(tmp_path, export):
    with pytest.raises(
        RunError, match="is not a SavedModel. Expected a saved_model.pb"
    ):
        list(answers.check(tmp_path))
    (export / "assets" / "model.json").write_text("{}")
    with pytest.raises(RunError, match="is not an export of train.export"):
        list(answers.check(export))


def test_signature_with_missing_output_is_refused(export):
    def without_scores(images):
        return {"probabilities": answer(tf.shape(images)[0])["probabilities"]}

    save(export, signatures(without_scores))
    with pytest.raises(RunError, match="serving_default is wrong. Expected"):
        list(answers.check(export))


def test_different_weights_in_a_server_are_detected(export):
    """Swaps two variables of equal shape in the restore node of a server."""
    file = export / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    meta_graph = saved.meta_graphs[0]
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    restore = nodes[meta_graph.saver_def.restore_op_name]
    by_shape = {}
    for place, name in enumerate(restore.input):
        if nodes[name].op == "VarHandleOp":
            shape = nodes[name].attr["shape"].shape.SerializeToString()
            by_shape.setdefault(shape, []).append(place)
    for first, *_, last in (places for places in by_shape.values() if places[1:]):
        names = restore.input[first], restore.input[last]
        restore.input[last], restore.input[first] = names
    file.write_bytes(saved.SerializeToString())
    with pytest.raises(RunError, match="gives different answers in a server"):
        list(answers.check(export))


def test_answers_that_depend_on_the_batch_are_detected(export):
    def of_the_batch(images):
        mean = tf.reduce_mean(tf.cast(images, tf.float32)) / 255
        rows = tf.concat([mean * tf.ones((1, 1)), (1 - mean) / 9 * tf.ones((1, 9))], 1)
        count = tf.shape(images)[0]
        return answer(count, tf.tile(rows, (count, 1)))

    save(export, signatures(of_the_batch))
    with pytest.raises(RunError, match="answer to a batch of . images is wrong"):
        list(answers.check(export))


def test_invalid_image_bytes_must_raise_an_error(export):
    save(export, signatures())
    with pytest.raises(RunError, match="no bytes is not an image. Expected an error"):
        list(answers.check(export))


KINDS = {  # format and mode, as Pillow reads them
    "JPEG": ("JPEG", "RGB"),
    "grey PNG": ("PNG", "L"),
    "grey JPEG": ("JPEG", "L"),
    "CMYK JPEG": ("JPEG", "CMYK"),
    "PNG with a palette": ("PNG", "P"),
    "PNG with alpha": ("PNG", "RGBA"),
    "BMP": ("BMP", "RGB"),
    "animated GIF (the first)": ("GIF", "P"),
}


@pytest.mark.parametrize("channels", augment.DECODABLE)
def test_images_have_their_format_and_content(channels):
    pictures = {name: rest for name, *rest in odd_images.pictures(channels)}
    assert set(KINDS) < set(pictures)
    for name, (content, equal, is_lossy) in pictures.items():
        with PIL.Image.open(io.BytesIO(content)) as image:
            kind, frames = (image.format, image.mode), getattr(image, "n_frames", 1)
            pixels = image.convert("RGB")
        assert kind == KINDS.get(name, ("PNG", "RGB")) or name == "16-bit PNG"
        assert frames == (2 if "animated" in name else 1)
        with PIL.Image.open(io.BytesIO(equal)) as image:
            expected = image.convert("RGB")
        if pixels.size == expected.size:
            difference = np.abs(np.asarray(pixels, int) - np.asarray(expected, int))
            assert difference.max() <= 3 * is_lossy
    deep = tf.io.decode_png(pictures["16-bit PNG"][0], dtype=tf.uint16)
    assert deep.numpy().max() > 255
    colour = np.asarray(PIL.Image.open(io.BytesIO(pictures["JPEG"][0])))
    assert (np.ptp(colour, axis=-1) > 50).all() == (channels == 3)


def test_damaged_images_cannot_be_decoded():
    for name, content in odd_images.damaged(3):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.io.decode_image(content)
        assert name


def test_different_answers_of_another_format_are_detected(export, monkeypatch):
    (export / "model.onnx").touch()
    real = answers.runtimes.load

    def load(name, path):
        if name == "saved_model":
            return real(name, path)
        return lambda images: np.full((len(images), 10), 0.5, np.float32)

    monkeypatch.setattr(answers.runtimes, "load", load)
    with pytest.raises(RunError, match="onnx differs from the SavedModel"):
        list(answers.check(export))


def test_card_of_an_older_export_is_refused(export):
    file = export / "assets" / "model.json"
    card = json.loads(file.read_text())
    del card["preprocessing"]
    file.write_text(json.dumps(card))
    with pytest.raises(RunError, match="KeyError\\('preprocessing'\\)"):
        list(answers.check(export))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("saved_model.pb", lambda b: b[:1000], "is damaged. Expected a SavedModel"),
        ("saved_model.pb", lambda _: b"", "Expected one graph for serving"),
        ("variables/variables.data-00000-of-00001", lambda b: b[:99], "cannot be load"),
        ("model.onnx", lambda _: b"noise", "cannot be loaded"),
        (
            "assets/labels.txt",
            lambda b: b[2:],
            "does not match its model.json in labels",
        ),
        ("assets.extra/tf_serving_warmup_requests", lambda b: b[9:], "is damaged"),
    ],
)
def test_damaged_file_is_named_in_the_error(export, file, change, words):
    path = export / file
    path.write_bytes(change(path.read_bytes() if path.exists() else b""))
    with pytest.raises(RunError, match=words):
        list(answers.check(export))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("precision", "float8", "KeyError\\('float8'\\)"),
        ("test", True, "Expected a readable"),
        ("preprocessing", {"shape": [float("inf"), 8, 1]}, "OverflowError"),
        ("class_names", 5, "does not match its model.json in labels"),
        ("version", 999, "not match its model.json in the name of its directory"),
    ],
)
def test_card_that_does_not_match_is_refused(export, key, value, words):
    file = export / "assets" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(RunError, match=words):
        list(answers.check(export))
