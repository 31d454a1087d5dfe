"""export, predict, serve_check and report on a finished run."""

import csv
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import train.__main__
from train import predict, report, serve_check
from train.engine import run_directory
from train.export import __main__ as export_command
from train.export import runtimes
from train.input import augment, dataset, pipeline


@pytest.fixture(scope="module")
def export(short_run):
    return runtimes.newest_export(short_run[0])


@pytest.fixture(scope="module")
def digits(short_run, data_dir):
    return dataset.load(
        run_directory.read_spec(short_run[0]).recipe.data, str(data_dir)
    )


def test_signatures_have_the_documented_names_shapes_and_types(export):
    signatures = tf.saved_model.load(str(export)).signatures
    described = {
        name: (
            {k: (s.dtype.name, s.shape.as_list()) for k, s in inputs.items()},
            {k: (s.dtype.name, s.shape.as_list()) for k, s in outputs.items()},
        )
        for name, inputs, outputs in (
            (name, f.structured_input_signature[1], f.structured_outputs)
            for name, f in signatures.items()
        )
    }
    answers = {
        "probabilities": ("float32", [None, 10]),
        "classes": ("string", [None, 5]),
        "scores": ("float32", [None, 5]),
    }
    images = {"images": ("uint8", [None, 8, 8, 1])}
    assert described == {
        "serving_default": (images, answers),
        "image_bytes": ({"image_bytes": ("string", [None])}, answers),
        "features": (images, {"features": ("float32", [None, 64])}),
    }


def test_answers_are_probabilities_with_sorted_names_and_scores(export, digits):
    serve = tf.saved_model.load(str(export)).signatures["serving_default"]
    entries = digits.splits["test"].images[:9]
    images = tf.stack([pipeline.evaluation_image(digits, entry) for entry in entries])
    answer = {name: value.numpy() for name, value in serve(images=images).items()}
    np.testing.assert_allclose(answer["probabilities"].sum(-1), 1, rtol=1e-5)
    order = np.argsort(-answer["probabilities"], axis=-1)[:, :5]
    names = np.array(digits.class_names)[order]
    assert (np.char.decode(answer["classes"].astype("S")) == names).all()
    expected = np.take_along_axis(answer["probabilities"], order, -1)
    np.testing.assert_array_equal(answer["scores"], expected)


def test_image_bytes_give_the_answer_of_their_resized_pixels(export):
    signatures = tf.saved_model.load(str(export)).signatures
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8)
    for encode in (tf.io.encode_png, lambda x: tf.io.encode_jpeg(x, quality=95)):
        encoded = encode(tf.constant(pixels))
        resized = augment.to_input_size(augment.decode(encoded, 1), (8, 8, 1))
        one = signatures["image_bytes"](image_bytes=encoded[tf.newaxis])
        other = signatures["serving_default"](images=resized[tf.newaxis])
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], 1e-5)


def test_assets_hold_labels_and_model_card(export):
    assert (export / "assets" / "labels.txt").read_text().split() == list("0123456789")
    card = json.loads((export / "assets" / "model.json").read_text())
    assert card["model"] == "resnet8_an" and card["test"]["images"] == 355
    assert export.name == str(card["step"])


def test_export_writes_each_version_only_once(short_run, tmp_path, call):
    workdir, _ = short_run
    flags = [f"--workdir={workdir}", f"--out={tmp_path / 'models'}"]
    assert "SavedModel in" in call(export_command, *flags).stdout
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["60"]
    done = call(export_command, *flags, expected=1)
    assert "already exists. Expected a new version" in done.stderr


def test_export_of_another_directory_is_refused_without_leftovers(tmp_path, call):
    flags = [f"--workdir={tmp_path}", f"--out={tmp_path / 'models'}"]
    done = call(export_command, *flags, expected=1)
    assert "is not the directory of a run" in done.stderr
    assert not (tmp_path / "models").exists()


def test_predict_prints_names_and_scores(short_run, digits, tmp_path, command):
    workdir, _ = short_run
    split = digits.splits["test"]
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(split.images[i].numpy())
    done = command("-m", "train.predict", workdir, *paths)
    serve = tf.saved_model.load(str(runtimes.newest_export(workdir))).signatures
    answer = serve["image_bytes"](split.images[:3])
    for i, line in enumerate(done.stdout.strip().splitlines()):
        name, score = answer["classes"][i, 0].numpy().decode(), answer["scores"][i, 0]
        assert line.startswith(f"{paths[i]}  {name} ")
        # one image rounds differently than a batch of three
        assert float(line.split()[2]) == pytest.approx(float(score), abs=2e-4)


def test_predict_writes_what_it_prints(short_run, digits, tmp_path, call):
    (tmp_path / "scans").mkdir()
    for name, image in zip("bac", digits.splits["test"].images[:3], strict=True):
        (tmp_path / "scans" / f"{name}.png").write_bytes(image.numpy())
    (tmp_path / "scans" / "notes.txt").touch()
    table, objects = tmp_path / "a.csv", tmp_path / "a.json"
    flags = [f"--csv={table}", f"--json={objects}"]
    done = call(predict, short_run[0], tmp_path / "scans", *flags)
    assert "left out: 1 .txt" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["file", "class", "score", "class 2"] and len(header) == 11
    assert [row[0] for row in rows] == [
        str(tmp_path / "scans" / f"{name}.png") for name in "abc"
    ]
    for line, row, each in zip(
        lines, rows, json.loads(objects.read_text()), strict=True
    ):
        scores = [f"{float(score):.4f}" for score in row[2::2]]
        assert line[0] == row[0]
        assert line[1::2] == row[1::2] and line[2::2] == scores
        assert each["file"] == row[0]
        assert [guess["class"] for guess in each["classes"]] == row[1::2]


def test_predict_stops_at_an_image_that_the_export_refuses(
    short_run, digits, tmp_path, call
):
    for name in "ac":
        image = digits.splits["test"].images[0].numpy()
        (tmp_path / f"{name}.png").write_bytes(image)
    (tmp_path / "b.png").write_bytes(image[: len(image) // 2])
    flags = [f"--csv={tmp_path / 'a.csv'}"]
    done = call(predict, short_run[0], tmp_path, *flags, expected=1)
    assert done.stdout.startswith(f"{tmp_path / 'a.png'}  ")
    assert len(done.stdout.splitlines()) == 1
    assert f"error: {tmp_path / 'b.png'} is not an image" in done.stderr
    assert not (tmp_path / "a.csv").exists()


def test_predict_reports_a_missing_file_before_tensorflow_is_imported(
    short_run, tmp_path, command
):
    program = (
        "import sys\n"
        "sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from train import cli, predict\n"
        "cli.run(predict.main, predict.define_flags)\n"
    )
    done = command("-c", program, short_run[0], tmp_path / "none.png", expected=1)
    assert done.stderr.startswith("error: Cannot read ") and done.stdout == ""


@pytest.mark.parametrize("file", ["variables.index", "variables.data-00000-of-00001"])
def test_predict_reports_an_export_with_a_damaged_bit(file, short_run, tmp_path, call):
    workdir, _ = short_run
    export = runtimes.newest_export(workdir)
    shutil.copytree(export, tmp_path / export.name)
    damaged = tmp_path / export.name / "variables" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 16
    damaged.write_bytes(content)
    (tmp_path / "a.png").write_bytes(b"")
    arguments = [tmp_path / export.name, tmp_path / "a.png"]
    done = call(predict, *arguments, expected=1)
    assert "cannot be loaded. Expected undamaged files" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_reports_unusable_arguments(short_run, tmp_path, call):
    workdir, _ = short_run
    (tmp_path / "text.png").write_text("no picture")
    for arguments, code, words in (
        ([workdir], 2, "Expected a run and at least one image"),
        ([workdir, tmp_path / "none.png"], 1, "Cannot read"),
        ([workdir, tmp_path / "text.png"], 1, "text.png is not an image"),
        ([tmp_path, tmp_path / "text.png"], 1, "holds no SavedModel"),
    ):
        done = call(predict, *arguments, expected=code)
        assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_serve_check_detects_a_different_accuracy(export, data_dir, tmp_path, call):
    broken = tmp_path / "60"
    shutil.copytree(export, broken)
    card = json.loads((broken / "assets" / "model.json").read_text())
    card["test"]["top1"] -= 1 / 355
    (broken / "assets" / "model.json").write_text(json.dumps(card))
    flags = [broken, f"--data_dir={data_dir}"]
    done = call(serve_check, *flags, expected=1)
    assert "does not reproduce its accuracy" in done.stderr


def test_serve_check_blocks_our_packages_and_keras(export, data_dir, command):
    arguments = json.dumps([str(export), str(data_dir), None, 600])
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['answers', {arguments!r}]\n"
        "runpy.run_module('train.export.answers', run_name='__main__')\n"
        "for name in ('keras', 'tf_keras', 'an_keras', 'model_zoo'):\n"
        "    try:\n"
        "        __import__(name)\n"
        "    except ImportError:\n"
        "        continue\n"
        "    raise AssertionError(name)\n"
    )
    assert "as trained" in command("-c", program).stdout


def test_report_compares_runs(short_run, data_dir, tmp_path, call):
    workdir, _ = short_run
    done = call(report, workdir, "--svm", f"--data_dir={data_dir}")
    results = json.loads((workdir / "results.json").read_text())
    assert f"{results['top1']:.4f}" in done.stdout and "SVM (RBF)" in done.stdout
    done = call(report, tmp_path, expected=1)
    assert "is not the directory of a run" in done.stderr


@pytest.mark.slow
def test_export_too_large_for_the_disk_leaves_nothing(command, short_run, tmp_path):
    flags = [f"--workdir={short_run[0]}", f"--out={tmp_path / 'models'}"]
    done = command("-m", "train.export", *flags, expected=1, largest_file=2**16)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Cannot export to" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_every_kind_of_weights_is_exported(tmp_path, short_flags, call):
    run = tmp_path / "run"
    flags = [*short_flags, "--set=optimizer.average=0.9", "--noexport"]
    call(train.__main__, *flags, f"--workdir={run}")
    assert not (run / "export").exists()
    assert f"SavedModel of {run}" not in call(report, run).stdout
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    answers = {}
    for kind in ("best", "last", "average"):
        out = tmp_path / kind
        chosen = [f"--workdir={run}", f"--out={out}", f"--checkpoint={kind}"]
        call(export_command, *chosen)
        serve = tf.saved_model.load(str(out / "60")).signatures["serving_default"]
        answers[kind] = serve(images=tf.constant(images))["probabilities"].numpy()
        card = json.loads((out / "60" / "assets" / "model.json").read_text())
        assert bool(card["test"]) == (kind == "best")
    np.testing.assert_array_equal(answers["best"], answers["average"])  # same step
    assert np.abs(answers["last"] - answers["best"]).max() > 1e-3
    exported = call(train.__main__, *flags[:-1], f"--workdir={run}").stdout
    assert f"export   SavedModel in {run / 'export' / '60'}" in exported
    assert f"SavedModel of {run}: {run / 'export' / '60'}" in call(report, run).stdout


def test_missing_averages_are_a_usage_error(short_run, call):
    flags = [f"--workdir={short_run[0]}", "--checkpoint=average"]
    done = call(export_command, *flags, expected=2)
    assert "keeps no averages" in done.stderr


def test_export_is_folded_by_default(short_run, export, tmp_path, call):
    flags = ["--nofold", f"--workdir={short_run[0]}", f"--out={tmp_path}"]
    call(export_command, *flags)
    plain = tmp_path / "60"
    cards, names, answers = [], [], []
    images = tf.zeros((3, 8, 8, 1), tf.uint8)
    for path in (export, plain):
        cards.append(json.loads((path / "assets" / "model.json").read_text()))
        names.append(
            {n for n, _ in tf.train.list_variables(f"{path}/variables/variables")}
        )
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        answers.append(serve(images=images)["probabilities"])
    assert [card["folded"] for card in cards] == [True, False]
    assert len(names[0]) < len(names[1])
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_warm_up_requests_are_answered(export):
    signatures = tf.saved_model.load(str(export)).signatures
    file = export / "assets.extra" / "tf_serving_warmup_requests"
    answered = []
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        name = request.model_spec.signature_name
        answer = signatures[name](**{k: tf.constant(v) for k, v in inputs.items()})
        answered.append((name, answer["probabilities"].shape[0]))
    assert answered == [
        (name, count) for count in (1, 3) for name in ("serving_default", "image_bytes")
    ]
