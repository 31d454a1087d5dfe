"""Exports of runs and of networks, in every format."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

import model_zoo
from train import cli
from train.cli import RunError, UsageError
from train.export import __main__ as export_command
from train.export import (
    answers,
    compare,
    copies,
    image_classifier,
    network_flags,
    runtimes,
    write,
)

NETWORK = "resnet20_an"


@pytest.fixture(scope="module")
def of_tag():
    return image_classifier.of_network(NETWORK, "fashion_mnist", {})


@pytest.fixture(scope="module")
def tag_export(of_tag, tmp_path_factory):
    return write.export(of_tag, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small untrained classifier."""
    file = tmp_path_factory.mktemp("small") / "net.weights.h5"
    options, labels = {"input_shape": (8, 8, 1)}, tuple("abc")
    model_zoo.create_model("resnet8_an", classes=3, **options).save_weights(file)
    return image_classifier.of_network("resnet8_an", str(file), options, labels)


def card(version):
    return json.loads((version / "assets" / "model.json").read_text())


def test_zoo_network_is_exported_with_its_preprocessing(tag_export):
    images = compare.probe_images((28, 28, 1))
    model = model_zoo.create_model(f"{NETWORK}.fashion_mnist")
    expected = model(model_zoo.preprocess_input(images, f"{NETWORK}.fashion_mnist"))
    served = runtimes.load("saved_model", tag_export)(images)
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_card_describes_the_model_and_its_preprocessing(tag_export):
    described = card(tag_export)
    assert described["model"] == NETWORK and described["weights"] == "fashion_mnist"
    assert described["version"] == 1 and described["folded"] is True
    assert described["class_names"][9] == "Ankle boot" and described["test"] is None
    assert described["metrics"]["test_top1"] == 0.9338
    assert described["preprocessing"] == {
        "shape": [28, 28, 1],
        "shorter_side": 28,
        "interpolation": "bilinear",
        "mean": [0.286],
        "std": [0.353],
        "reverse_channels": False,
    }
    assert set(described["versions"]) == {"an_keras", "keras", "tensorflow"}
    assert described["compared"]["saved_model"] <= 1e-5


def test_export_without_test_results_is_checked(tag_export):
    lines = list(answers.check(tag_export))
    assert any("batches of 1, 3, 64" in line for line in lines)
    assert lines[-1].startswith("accuracy not compared")


@pytest.mark.parametrize(("change", "limit"), [(0, 1e-5), (5e-4, 5e-5), (0.5, 1e-4)])
def test_exports_may_differ_by_rounding(change, limit):
    """Includes a network that is certain of one class, or untrained."""
    probabilities = np.array([[0.5, 0.5], [0.5 + change, 0.5 - change]])
    allowed = compare.limit(probabilities, "float32")
    np.testing.assert_allclose(allowed, limit, rtol=1e-6)


@pytest.mark.parametrize(("own", "limit"), [(0.001, 0.05), (0.1, 0.4)])
def test_exports_of_low_precision_models_may_differ_more(own, limit):
    probabilities = np.array([[0.5, 0.5], [1.0, 0.0]])
    exact = probabilities + [[own, -own], [0, 0]]
    allowed = compare.limit(probabilities, "mixed_bfloat16", exact)
    np.testing.assert_allclose(allowed, limit, rtol=1e-6)


@pytest.mark.slow
def test_network_receives_channels_in_reverse_order(tmp_path):
    """Networks of Keras Applications in "caffe" mode need this."""
    name, options = "applications.ANResNet50", {"input_shape": (32, 32, 3)}
    model = model_zoo.create_model(name, classes=3, **options)
    model.save_weights(tmp_path / "net.weights.h5")
    labels = ("a", "b", "c")
    classifier = image_classifier.of_network(
        name, str(tmp_path / "net.weights.h5"), options, labels
    )
    assert classifier.reverse_channels
    images = compare.probe_images(classifier.shape)
    expected = model_zoo.preprocess_input(images, name)
    np.testing.assert_allclose(classifier.standardize(images), expected, atol=1e-4)


def test_network_without_rescaling_is_exported_with_it(tmp_path):
    name = "applications.ANMobileNetV3Small"
    options = {"input_shape": (32, 32, 3), "include_preprocessing": False}
    file = tmp_path / "net.weights.h5"
    model_zoo.create_model(name, classes=3, **options).save_weights(file)
    classifier = image_classifier.of_network(name, str(file), options, ("a", "b", "c"))
    images = compare.probe_images(classifier.shape)
    expected = images / 127.5 - 1
    np.testing.assert_allclose(classifier.standardize(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "weights", "options", "labels", "words"),
    [
        ("resnet21", "a.weights.h5", {}, (), "Unknown model"),
        (NETWORK, "none.weights.h5", {}, (), "must be None, the path of"),
        (NETWORK, "fashion_mnist", {}, ("a", "b"), "names of 10 classes.*: 2 names"),
        (NETWORK, "fashion_mnist", {"k": 1}, (), "Cannot build resnet20_an"),
        (NETWORK, "fashion_mnist", {"norm_options": 5}, (), "Cannot build resnet20_an"),
        (NETWORK, "fashion_mnist", {"input_shape": (10**9, 9, 1)}, (), "at most 16384"),
        (NETWORK, "fashion_mnist", {"include_top": False}, (), "--options without"),
        ("resnet8_an", "DAMAGED", {}, (), "is not a .weights.h5 file or is damaged"),
        ("resnet20_an", "FILE", {}, (), "holds the weights of a network other than"),
        ("resnet8_an", "HEADLESS", {}, (), "needs a classifier"),
        (
            "resnet8_an",
            "FILE",
            {},
            (),
            "Expected --labels=FILE with the names of 7 classes",
        ),
    ],
)
def test_network_that_cannot_be_exported_is_refused(
    tmp_path, name, weights, options, labels, words
):
    if weights in ("FILE", "HEADLESS", "DAMAGED"):
        kind = {"include_top": False} if weights == "HEADLESS" else {"classes": 7}
        file = tmp_path / "net.weights.h5"
        model_zoo.create_model("resnet8_an", **kind).save_weights(file)
        if weights == "DAMAGED":
            content = file.read_bytes()
            file.write_bytes(content[:2000] + bytes(4000) + content[6000:])
        weights = str(file)
    with pytest.raises(UsageError, match=words):
        image_classifier.of_network(name, weights, options, labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Expected --workdir=RUN, or --model"),
        (["--model=resnet20_an", "--weights=fashion_mnist"], "Received: --model, --w"),
        (["--workdir=a", "--model=b"], "Received: --model, --workdir"),
        (["--workdir=a", "--format=tflite"], "with some of litert, onnx, openvino"),
        (["--workdir=a", "--quantize=int8"], "--quantize with --format=litert"),
        (["--workdir=a", "--options={}"], "Expected --options with --model only"),
    ],
)
def test_flags_that_do_not_match_are_usage_errors(call, arguments, words):
    done = call(export_command, *arguments, expected=2)
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"\xef\xbb\xbfa\r\nb\r\n\r\n", ("a", "b")),
        ("Größe\nÄ B\n".encode(), ("Größe", "Ä B")),
        ("Größe\nÄ\u2028B\n".encode(), r"without control .*Received: '\\xc4\\u2028B'"),
        (b"a\rb\nc\n", r"without control characters.*Received: 'a\\rb'"),
        (b"a\n\nb\n", "Expected a different name on each line.*Received: ''"),
        (b"a\nb\na\n", "Expected a different name on each line.*Received: 'a'"),
        ("Größe".encode("latin-1"), "Expected UTF-8 in --labels"),
    ],
)
def test_labels_are_the_lines_of_a_file(tmp_path, content, received):
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    if isinstance(received, tuple):
        assert network_flags.read_labels(str(file)) == received
        return
    with pytest.raises(UsageError, match=received):
        network_flags.read_labels(str(file))


def test_different_answers_are_detected(of_tag):
    """This includes models whose probabilities are all close to each other."""
    classifier = of_tag.serving_model(of_tag.model)
    images = compare.probe_images(of_tag.shape)
    for wrong in (255 - images, images[::-1], np.zeros_like(images)):
        answer = classifier(wrong)
        for precision in compare.TOLERANCES:
            with pytest.raises(RunError, match="differs from the model"):
                compare.difference("it", classifier, images, answer, precision)


def test_normalization_of_efficientnets_becomes_part_of_the_graph():
    images = keras.Input((4, 4, 3))
    layer = keras.layers.Normalization(mean=(1.0, 2.0, 3.0), variance=(4.0, 1.0, 9.0))
    model = keras.Model(images, layer(images))
    scaled = copies.with_plain_layers(model)
    assert not any(
        isinstance(each, keras.layers.Normalization) for each in scaled.layers
    )
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(scaled(x), model(x), atol=1e-6)


def test_grouped_convolutions_of_single_channels_become_depthwise():
    images = keras.Input((9, 8, 6))
    arguments = {"groups": 6, "padding": "same", "activation": "relu"}
    x = keras.layers.Conv2D(6, 3, dilation_rate=2, name="a", **arguments)(images)
    x = keras.layers.Conv2D(12, 3, groups=6, strides=2, use_bias=False, name="b")(x)
    x = keras.layers.Conv2D(12, 3, groups=6, name="c")(x)
    model = keras.Model(images, x)
    model.get_layer("a").bias.assign(np.arange(6) - 3.0)
    plain = copies.with_plain_layers(model)
    kinds = [type(plain.get_layer(name)).__name__ for name in "abc"]
    # c combines pairs of channels.
    assert kinds == ["DepthwiseConv2D", "DepthwiseConv2D", "Conv2D"]
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 6)).astype("float32")
    np.testing.assert_allclose(plain(x), model(x), atol=1e-6)


def test_missing_package_is_named_before_anything_is_written(
    small, tmp_path, monkeypatch
):
    monkeypatch.setitem(runtimes.PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(
        RunError, match=r"needs the package no_such_package.*train,export"
    ):
        write.export(small, tmp_path / "models", others=("onnx",))
    assert not (tmp_path / "models").exists()


def test_format_that_differs_is_refused_without_leftovers(small, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "write", lambda *_: None)
    monkeypatch.setattr(runtimes, "load", lambda *_: lambda images: np.zeros((3, 3)))
    with pytest.raises(RunError, match="within .* in onnx. Received: a difference of"):
        write.export(small, tmp_path, others=("onnx",))
    assert list(tmp_path.iterdir()) == []


def test_version_is_invisible_before_its_check(small, tmp_path):
    seen = []

    def check(path):
        seen.append((path.name, [each.name for each in tmp_path.iterdir()]))
        raise RunError("no")

    with pytest.raises(RunError, match="no"):
        write.export(small, tmp_path, check=check)
    assert seen == [("1", [".writing-1"])]
    assert list(tmp_path.iterdir()) == []


def test_second_export_to_a_directory_fails_at_once(small, tmp_path):
    with (
        cli.lock(tmp_path, "is exporting to"),
        pytest.raises(RunError, match="Another process is exporting to"),
    ):
        write.export(small, tmp_path)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
@pytest.mark.parametrize(
    "quantization",
    [
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param("float16", marks=pytest.mark.long),
        pytest.param("dynamic", marks=pytest.mark.long),
        pytest.param("int8", marks=pytest.mark.slow),
    ],
)
def test_run_is_exported_in_every_format(
    short_run, data_dir, call, tmp_path, quantization
):
    kinds = ["litert"] if quantization else runtimes.OTHERS
    flags = [f"--workdir={short_run[0]}", f"--out={tmp_path}", f"--data_dir={data_dir}"]
    quantize = [f"--quantize={quantization}"] if quantization else []
    done = call(export_command, *flags, f"--format={','.join(kinds)}", *quantize)
    version = tmp_path / "60"
    assert f"SavedModel in {version}" in done.stdout
    compared = card(version)["compared"]
    assert compared.keys() == {"saved_model", *kinds}
    for kind in kinds:
        images = quantization in write.WITH_IMAGES
        words = "same first guess" if images else "probabilities within"
        assert re.search(rf"^{kind} +in .*, {words} .* model", done.stdout, re.M)
    if quantization:
        plain = tmp_path / "plain"
        call(export_command, *flags[::2], f"--out={plain}", "--format=litert")
        sizes = [runtimes.size("litert", path) for path in (version, plain / "60")]
        assert sizes[0] < 0.75 * sizes[1]
    lines = "\n".join(answers.check(version, str(data_dir)))
    for kind in kinds:
        assert f"{kind}: probabilities within" in lines
    assert lines.count("on 355 test images") == 1 + len(kinds)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_killed_export_leaves_complete_versions_or_none(
    short_run, command, call, tmp_path, request
):
    rng, out = random.Random(0), tmp_path / "models"
    flags = [f"--workdir={short_run[0]}", f"--out={out}", "--format=litert"]
    arguments = [sys.executable, "-m", "train.export", *flags]
    start = time.monotonic()
    command(*arguments[1:])
    whole = time.monotonic() - start
    (out / "60").rename(tmp_path / "60")
    for _ in range(request.config.getoption("--kills")):
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.3, 1.0) * whole)
        process.kill()
        is_done = process.wait() != -signal.SIGKILL
        names = [path.name for path in out.iterdir()]
        assert set(names) <= {"60", ".writing-60"}
        if is_done or "60" in names:
            assert list(answers.check(out / "60"))
            (out / "60").rename(tmp_path / f"60-{time.monotonic_ns()}")
    call(export_command, *flags)
    assert [path.name for path in out.iterdir()] == ["60"]


def test_encoded_images_are_resized_as_in_the_published_evaluation(of_tag):
    """Resizes the shorter side to 28 and crops 28: square images lose nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 1), dtype=np.uint8)
    resized = of_tag.decode_and_resize(tf.io.encode_png(pixels))
    assert resized.dtype == tf.uint8 and resized.shape == (28, 28, 1)
    means = model_zoo.preprocessing.resize_and_crop(pixels.astype("float32"), 28, 28)
    np.testing.assert_allclose(resized, means, atol=0.51)
