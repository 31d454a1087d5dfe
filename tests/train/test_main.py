"""python -m train from the command line: the main job, exit codes and resuming."""

import csv
import dataclasses
import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import train.__main__
from train import evaluate, fields, recipes, serve_check
from train.engine import checkpoint

ROOT = pathlib.Path(__file__).parents[2]


def rows(workdir):
    with (workdir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_prints_its_progress_and_the_location_of_its_files(short_run):
    workdir, output = short_run
    for words in (
        "resnet8_an, 80,138 parameters",
        "images: 1299 train, 143 validation, 355 test",
        "1 replica(s)",
        "64 global, 64 per replica",
        "steps    60 ",
        "compiling the first step",
        "step 40/60  epoch 2.0/3.0  loss ",
        f"SavedModel in {workdir}/export/",
        "on 355 test images, as trained",
        "served   refused, as they should be: CMYK JPEG, BMP, ",
        "served   without keras, tf_keras, an_keras, model_zoo",
        f"tensorboard --logdir {workdir}",
    ):
        assert words in output


def test_run_directory_holds_metrics_and_results(short_run):
    workdir, _ = short_run
    assert [(row["step"], row["split"]) for row in rows(workdir)] == [
        ("20", "train"),
        ("40", "train"),
        ("60", "train"),
        ("60", "validation"),
    ]
    results = json.loads((workdir / "results.json").read_text())
    assert results["model"] == "resnet8_an" and results["images"] == 355
    assert results["top1"] > 0.5 and results["top5"] > results["top1"]
    tags = {
        split: {
            value.tag
            for file in workdir.glob(f"{split}/events*")
            for event in tf.compat.v1.train.summary_iterator(str(file))
            for value in event.summary.value
        }
        for split in ("train", "validation")
    }
    assert {"loss", "top1", "top5", "learning_rate"} <= tags["train"]
    assert {"loss", "top1", "attention/stage1_block1_norm1"} <= tags["validation"]


def test_restarting_a_finished_run_repeats_nothing(short_run, short_flags, call):
    workdir, _ = short_run
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    done = call(train.__main__, *short_flags, f"--workdir={workdir}")
    assert "going on from step 60" in done.stdout and "served" in done.stdout
    after = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert before == after


def test_recipes_are_listed_with_network_and_data(call):
    lines = call(train.__main__, "--recipes").stdout.splitlines()
    for name in recipes.RECIPES:
        recipe = recipes.create_recipe(name)
        (line,) = (line for line in lines if line.split()[1:2] == [name])
        assert recipe.model.name in line and f"{recipe.epochs:g}" in line.split()
    (line,) = (line for line in lines if " aognet_40m_an_200e " in line)
    assert " 81.87 " in line and " 5.7e+18 " in line


def test_commands_run_in_every_directory(command, tmp_path):
    done = command("-m", "train", "--recipes", cwd=tmp_path)
    assert "photos_imagenet" in done.stdout


def test_unknown_recipe_suggests_similar_ones(call):
    done = call(train.__main__, "--recipe=digit", expected=2)
    assert "Unknown recipe. Expected one like digits" in done.stderr


def test_recipe_is_printed_with_its_source_command_and_values(call):
    flags = ("--print_recipe", "--set=epochs=3")
    shown = call(train.__main__, "--recipe=resnet50_an_120e", *flags).stdout
    for text in (
        "Li, Sun and Wu, ECCV 2020, on 8 GPUs",
        "python -m train --recipe=resnet50_an_120e --strategy=mirrored",
        "optimizer.learning_rate=0.1\n",
        "epochs=3.0\n",
    ):
        assert text in shown


def test_printed_command_has_the_flags_that_were_given(call):
    flags = ("--print_recipe", "--set=epochs=3", "--workdir=my runs", "--steps=5")
    shown = call(train.__main__, "--recipe=digits", *flags).stdout
    command = "python -m train --recipe=digits '--workdir=my runs' --steps=5 --set="
    assert f"{command}epochs=3\n" in shown


@pytest.mark.parametrize("flag", ["seed", "steps"])
def test_a_field_is_set_once(call, flag):
    flags = (f"--{flag}=1", f"--set={flag}=2", "--print_recipe")
    done = call(train.__main__, "--recipe=digits", *flags, expected=2)
    assert f"Expected --{flag} or --set={flag}. Received: both." in done.stderr


def test_recipe_needs_a_directory(call):
    done = call(train.__main__, "--recipe=photos", expected=2)
    assert "Expected --workdir=VALUE" in done.stderr


def test_command_without_flags_prints_its_documentation(command):
    done = command("-m", "train", expected=2)
    assert "--recipe=photos --data=folder:DIR" in done.stdout
    assert done.stderr.startswith("usage error: Expected --recipe=VALUE. Received: ")


def test_help_lists_every_field_of_a_recipe(command):
    shown = command("-m", "train", "--help").stdout
    for name, _, default, _ in fields.fields():
        given = "..." if default is dataclasses.MISSING else repr(default)
        assert f" {name}={given} (" in shown


@pytest.mark.long
@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)]
)
def test_stopped_run_resumes_with_identical_metrics(
    tmp_path, short_run, short_flags, command, stop, code
):
    reference, _ = short_run
    arguments = (
        "-m",
        "train",
        *short_flags,
        "--set=evaluate_every=1",
        f"--workdir={tmp_path / 'run'}",
    )
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step 20/60  validation"):
            process.send_signal(stop)
            break
    _, errors = process.communicate(timeout=900)
    assert process.returncode == code, errors
    if code == 75:
        assert errors.splitlines()[-1].startswith("preempted: everything is saved")
    done = command(*arguments)
    assert "from scratch" not in done.stdout and "going on from step" in done.stdout
    for row, expected in zip(
        (row for row in rows(tmp_path / "run") if row["split"] == "train"),
        (row for row in rows(reference) if row["split"] == "train"),
        strict=True,
    ):
        assert row == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Expected --recipe=VALUE"),
        (["--recipe=digit"], "Unknown recipe. Expected one like digits"),
        (["--recipe=digits", "--set=a=1"], "Unknown recipe field 'a'"),
        (["--recipe=digits", "--strategy=two"], "--strategy=two"),
        (["--recipe=digits", "--setp=3"], "Unknown command line flag 'setp'"),
        (["--recipe=digits", "more"], "Expected flags (--name=value) only"),
        (["--recipe=digits", "--data=cifar11"], "Unknown data set. Expected digits"),
        (["--recipe=digits", "--set=model.name=resnet"], "Expected one like resnet"),
        (
            ["--recipe=digits", "--set=model.options={'k': 1}"],
            "Cannot build resnet20_an",
        ),
        (
            ["--recipe=digits", "--set=model.options={'include_top': False}"],
            "is not a classifier. Expected outputs of shape (None, 10)",
        ),
        (
            ["--recipe=digits", "--set=model.name=applications.ANMobileNetV3Small"],
            "rescales images of 0 to 255 itself. Expected data.mean=(0.0,) data.std=",
        ),
    ],
)
def test_bad_flags_are_usage_errors(arguments, words, call, tmp_path):
    workdir = tmp_path / "run"
    flags = [*arguments, f"--workdir={workdir}"]
    errors = call(train.__main__, *flags, expected=2).stderr
    message = errors.strip().splitlines()[-1]
    assert message.startswith("usage error: ") and words in message
    assert "Traceback" not in errors
    assert not workdir.exists()


def test_help_lists_the_flags_and_exits_with_0(command):
    done = command("-m", "train", "--help")
    for flag in ("recipe", "workdir", "data", "strategy", "seed", "steps", "set"):
        assert f"--{flag}" in done.stdout


def test_unreadable_image_stops_the_run_before_it_starts(call, tmp_path):
    folder = tmp_path / "images" / "train" / "cat"
    folder.mkdir(parents=True)
    (folder / "bad.png").write_bytes(b"not a picture")
    done = call(
        train.__main__,
        "--recipe=digits",
        f"--data=folder:{tmp_path / 'images'}",
        "--set=data.image_size=8",
        f"--workdir={tmp_path / 'run'}",
        expected=1,
    )
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ") and "cat/bad.png" in message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_directory_and_checkpoint_of_another_run_are_refused(
    call, short_run, short_flags, tmp_path
):
    workdir, _ = short_run
    flags = [f"--workdir={workdir}", "--set=model.name=resnet8_bn"]
    done = call(train.__main__, *short_flags, *flags, expected=1)
    assert "belongs to another run" in done.stderr
    assert "recipe.model.name: expected 'resnet8_an', received 'resnet8_bn'" in (
        done.stderr
    )
    # the same settings, but with a checkpoint of another model
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text((workdir / "config.json").read_text())
    variables = {"model/stem_conv/kernel": tf.Variable(tf.zeros((3, 3, 1, 8)))}
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(variables=variables), str(other / "checkpoints"), 1
    )
    manager.save(checkpoint_number=5)
    done = call(train.__main__, *short_flags, f"--workdir={other}", expected=1)
    assert "is a checkpoint of another model. Expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_non_finite_loss_stops_the_run(call, tmp_path, short_flags):
    done = call(
        train.__main__,
        *short_flags,
        "--set=optimizer.weight_decay=1e6",
        "--set=optimizer.warmup_epochs=0",
        f"--workdir={tmp_path / 'run'}",
        expected=1,
    )
    assert "Training diverged between steps 1 and 20" in done.stderr
    assert not (tmp_path / "run" / "export").exists()


@pytest.mark.slow
def test_sigterm_before_training_ends_the_run_as_preempted(
    tmp_path, short_flags, command
):
    arguments = ["-m", "train", *short_flags, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("workdir"):
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 75, errors


def test_sigterm_during_imports_ends_the_run_as_preempted(tmp_path, short_flags):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "train", *short_flags]
        + [f"--workdir={run}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if " tensorflow." in line or " numpy." in line:
            process.terminate()
            break
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 75 and "preempted: nothing has started yet" in errors
    assert not run.exists()


INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # which background jobs ignore
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_interrupt_during_imports_has_no_traceback(tmp_path, short_flags):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "-X", "importtime", "-m", "train"]
        + [*short_flags, f"--workdir={tmp_path / 'run'}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if " tensorflow." in line or " numpy." in line:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=900)
    assert process.returncode == -signal.SIGINT and "Traceback" not in errors


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("test     top-1", marks=pytest.mark.long),
        pytest.param("served   ", marks=pytest.mark.slow),
    ],
)
def test_sigterm_after_training_ends_the_run_at_once(
    tmp_path, short_run, short_flags, command, words
):
    """The signal arrives during the export or during its check."""
    run = tmp_path / "run"
    shutil.copytree(short_run[0], run)
    shutil.rmtree(run / "export")
    arguments = ["-m", "train", *short_flags, f"--workdir={run}"]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith(words):
            break
    time.sleep(1)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert errors.splitlines()[-1].startswith("preempted: everything is saved")
    assert "as trained" in command(*arguments).stdout


@pytest.mark.slow
def test_finished_run_with_a_damaged_best_checkpoint_keeps_its_results(
    tmp_path, short_run, short_flags, call, caplog
):
    reference, _ = short_run
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    (data,) = run.glob("best/*.data*")
    content = bytearray(data.read_bytes())
    content[len(content) // 5] ^= 1
    data.write_bytes(content)
    shutil.rmtree(run / "export")
    flags = (f"--workdir={run}", short_flags[-1])
    assert "damaged checkpoint" in call(evaluate, *flags, expected=1).stderr
    done = call(train.__main__, *short_flags, f"--workdir={run}")
    assert "Recreated from" in caplog.text and "as trained" in done.stdout
    call(evaluate, *flags)
    results = [(each / "results.json").read_text() for each in (reference, run)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_results_and_export_of_other_weights_are_refused_until_removed(
    tmp_path, short_run, short_flags, call
):
    run = tmp_path / "run"
    shutil.copytree(short_run[0], run)
    (version,) = run.glob("export/*")
    for path in (version / "assets" / "model.json", run / "results.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "sha256": "0" * 64}))
        done = call(train.__main__, *short_flags, f"--workdir={run}", expected=1)
        assert "Expected sha256" in done.stderr and "Traceback" not in done.stderr
    (run / "results.json").unlink()
    shutil.rmtree(version)
    done = call(train.__main__, *short_flags, f"--workdir={run}")
    assert "as trained" in done.stdout


@pytest.mark.slow
def test_lost_best_checkpoint_is_recreated_from_the_one_of_its_step(
    tmp_path, short_run, short_flags, call, caplog
):
    reference, _ = short_run
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    for path in (run / "results.json", *run.glob("best/*.data*")):
        path.unlink()
    shutil.rmtree(run / "export")
    call(train.__main__, *short_flags, f"--workdir={run}")
    assert "best/ckpt-60 is a damaged checkpoint" in caplog.text
    assert "Recreated from" in caplog.text
    results = [json.loads((w / "results.json").read_text()) for w in (reference, run)]
    assert results[0]["loss"] == results[1]["loss"]
    assert rows(run) == rows(reference)


@pytest.mark.slow
def test_moved_run_and_data_are_recognized(tmp_path, call, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    for number, image in enumerate(pixels):
        file = tmp_path / "d" / "train" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    flags = ["--recipe=photos", "--steps=2", "--set=batch_size=4"]
    flags += ["--set=model.name=resnet8_an", "--set=data.image_size=8"]
    monkeypatch.chdir(tmp_path)
    done = call(train.__main__, *flags, "--data=folder:d", "--workdir=run")
    assert "as trained" in done.stdout
    monkeypatch.chdir(tmp_path / "d")
    assert "step 2" in call(evaluate, f"--workdir={tmp_path / 'run'}").stdout
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").rename(tmp_path / "e")
    (tmp_path / "run").rename(tmp_path / "moved")
    lost = call(evaluate, "--workdir=moved", expected=1)
    assert "Expected a directory" in lost.stderr
    assert "set --data to its new location" in lost.stderr
    call(evaluate, "--workdir=moved", "--data=folder:e")
    call(serve_check, "moved/export/2", "--data=folder:e")
    done = call(train.__main__, *flags, "--data=folder:./e/", "--workdir=moved")
    assert "going on from step 2" in done.stdout and "as trained" in done.stdout
    flags += ["--data=folder:e", "--steps=3", "--noexport"]
    longer = call(train.__main__, *flags, "--workdir=moved", expected=1).stderr
    assert "recipe.steps: expected 2, received 3" in longer
    (advice,) = re.findall(r"--set=model.weights=\w+", longer)
    done = call(train.__main__, *flags, advice, "--workdir=longer")
    assert "from the weights" in done.stdout and "step 3/3" in done.stdout
    call(evaluate, "--workdir=moved")


@pytest.mark.slow
def test_image_that_vanishes_during_training_is_reported_in_one_line(tmp_path, command):
    folder = tmp_path / "images" / "train"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.full((8, 8, 1), number, np.uint8)
            tf.io.write_file(
                str(folder / name / f"{number}.png"), tf.io.encode_png(pixels)
            )
    (folder / "a" / "list.txt").touch()
    flags = [f"--data=folder:{tmp_path / 'images'}", "--set=data.image_size=8"]
    flags += ["--set=batch_size=8", "--set=steps_per_loop=20", "--steps=100000"]
    flags += ["--set=model.name=resnet8_an"]
    run = f"--workdir={tmp_path / 'run'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "--recipe=digits", *flags, run],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    begin = []
    for line in process.stdout:
        begin.append(line)
        if line.startswith("step 3/"):  # 28 training images are 3 whole steps
            shutil.rmtree(folder / "a")
            break
    _, errors = process.communicate(timeout=900)
    assert "left out 1 .txt\n" in begin
    assert process.returncode == 1 and "Traceback" not in errors
    assert "Expected readable images of folder:" in errors.splitlines()[-1]


@pytest.mark.slow
def test_repeated_sigterms_act_like_one(tmp_path, short_flags):
    run = tmp_path / "run"
    flags = [*short_flags, "--steps=4000", "--set=evaluate_every=1000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *flags, f"--workdir={run}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step 20/4000"):
            break
    while process.poll() is None:
        process.terminate()
        time.sleep(0.01)
    _, errors = process.communicate()
    assert process.returncode == 75, errors
    step, _ = checkpoint.digest(run)
    assert step >= 20


@pytest.mark.slow
def test_directory_in_use_is_refused(tmp_path, short_flags, command):
    arguments = ["-m", "train", *short_flags, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("workdir"):
            break
    done = command(*arguments, expected=1)
    assert "error: Another process is training in" in done.stderr
    process.kill()
    process.communicate()


def test_directory_that_cannot_be_created_is_reported_in_one_line(
    tmp_path, short_flags, call
):
    (tmp_path / "file").touch()
    flags = [*short_flags, f"--workdir={tmp_path / 'file' / 'run'}"]
    done = call(train.__main__, *flags, expected=1)
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_accumulation_and_replicas_train_as_one_batch(tmp_path, data_dir, command):
    """Compares two replicas with two parts each with one device."""
    states = []
    for flags in (
        ["--strategy=one"],
        ["--strategy=mirrored", "--logical_cpus=2", "--set=accumulation=2"],
    ):
        workdir = tmp_path / flags[0].rpartition("=")[2]
        command(
            "-m",
            "train",
            "--recipe=digits",
            "--set=model.name=resnet8_an",
            "--steps=20",
            "--set=steps_per_loop=5",
            "--set=model.options={'normalization': 'group'}",  # no batch statistics
            "--set=optimizer.learning_rate=0.01",
            "--set=optimizer.clip_norm=0.5",
            "--set=optimizer.average=0.9",
            "--set=label_smoothing=0.1",
            "--noexport",
            f"--workdir={workdir}",
            f"--data_dir={data_dir}",
            *flags,
        )
        losses = [float(r["loss"]) for r in rows(workdir) if r["split"] == "train"]
        reader = tf.train.load_checkpoint(str(workdir / "checkpoints"))
        names = [
            name
            for name in sorted(reader.get_variable_to_shape_map())
            if name.startswith("variables/")
            and not re.search("iteration|state.S(run|best_digest)", name)
        ]
        states.append((losses, [reader.get_tensor(name) for name in names], names))
    (one, one_values, names), (parts, parts_values, _) = states
    np.testing.assert_allclose(parts, one, rtol=1e-5)
    for name, a, b in zip(names, one_values, parts_values, strict=True):
        np.testing.assert_allclose(
            b, a, atol=1e-4 * max(np.abs(a).max(), 1), err_msg=name
        )


@pytest.mark.parametrize(
    ("precision", "steps", "top1", "flags"),
    [
        pytest.param("mixed_bfloat16", 120, 0.8, [], marks=pytest.mark.slow),
        pytest.param(  # CPUs have no fast float16
            *("mixed_float16", 60, 0.4, ["--strategy=mirrored", "--logical_cpus=2"]),
            marks=pytest.mark.long,
        ),
    ],
)
def test_half_precision_trains_and_exports(
    tmp_path, data_dir, command, precision, steps, top1, flags
):
    done = command(
        "-m",
        "train",
        "--recipe=digits",
        "--set=model.name=resnet8_an",
        f"--steps={steps}",
        f"--set=precision={precision}",
        f"--workdir={tmp_path / 'run'}",
        f"--data_dir={data_dir}",
        *flags,
    )
    assert "as trained" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["top1"] > top1


@pytest.mark.parametrize(
    ("devices", "share"),
    [
        pytest.param(["--strategy=one"], 1, marks=pytest.mark.slow),
        pytest.param(
            ["--strategy=mirrored", "--logical_cpus=2"], 1 / 3, marks=pytest.mark.long
        ),
    ],
)
def test_killed_run_ends_with_the_digest_of_an_uninterrupted_one(
    tmp_path, data_dir, command, request, devices, share
):
    """The run uses mixup, dropout and averages, and is killed at random moments."""
    rng = random.Random(0)
    kills = max(round(share * request.config.getoption("--kills")), 1)
    steps = 40 * kills
    flags = [
        "--recipe=digits",
        f"--steps={steps}",
        "--set=steps_per_loop=10",
        "--set=evaluate_every=0.5",
        "--set=data.mixup=0.2",
        "--set=optimizer.average=0.9",
        "--set=model.name=resnet8_an",
        "--set=model.options={'dropout': 0.2}",
        "--noexport",
        f"--data_dir={data_dir}",
        *devices,
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command("-m", "train", *flags, f"--workdir={whole}")
    arguments = [sys.executable, "-m", "train", *flags, f"--workdir={killed}"]
    for kill in range(1, kills + 1):
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        # while it builds its graphs, or while it trains, evaluates and saves
        words = "workdir" if kill % 4 == 0 else "validation"
        lines = []
        for line in process.stdout:
            lines.append(line)
            if words in line:
                break
        after = rng.uniform(0.0, 8.0 if words == "workdir" else 1.5)
        time.sleep(after)
        process.kill()
        lines += process.communicate()[0].splitlines()
        print(
            f"kill {kill}, {after:.2f} s after {words}; last line: {lines[-1].strip()}"
        )
        assert process.returncode == -signal.SIGKILL
    command("-m", "train", *flags, f"--workdir={killed}")
    digests = {checkpoint.digest(run) for run in (whole, killed)}
    print(*digests, sep="\n")
    assert len(digests) == 1 and steps in digests.pop()
    tables = [(run / "metrics.csv").read_text() for run in (whole, killed)]
    assert tables[0] == tables[1]


@pytest.mark.long
def test_full_disk_destroys_nothing(tmp_path, short_run, short_flags, command):
    reference, _ = short_run
    run = tmp_path / "run"
    flags = ["-m", "train", *short_flags, "--set=evaluate_every=1", f"--workdir={run}"]
    half = 2**18  # bytes; a checkpoint of this run is more than twice as large
    done = command(*flags, expected=1, largest_file=half)
    assert "Cannot save the checkpoint of step 20 " in done.stderr.splitlines()[-1]
    assert "File too large" in done.stderr and "Traceback" not in done.stderr

    process = subprocess.Popen(
        [sys.executable, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for line in process.stdout:
        if line.startswith(b"step 20/60  validation"):
            process.terminate()
            break
    process.communicate(timeout=900)
    digest = ("-m", "train.checkpoint", "digest", run)
    before = command(*digest).stdout
    done = command(*flags, expected=1, largest_file=half)
    assert "Cannot save the checkpoint of step" in done.stderr.splitlines()[-1]
    assert command(*digest).stdout == before

    command(*flags)
    train = [[r for r in rows(w) if r["split"] == "train"] for w in (reference, run)]
    assert train[0] == train[1]


@pytest.mark.long  # like `make train`
def test_main_job_reaches_its_accuracy(tmp_path, data_dir, command):
    """`make train` promises 0.985 on digits, next to the BN twin and the SVM."""
    runs = [tmp_path / "digits", tmp_path / "digits_bn"]
    for run in runs:
        command(
            "-m",
            "train",
            f"--recipe={run.name}",
            f"--workdir={run}",
            f"--data_dir={data_dir}",
        )
    done = command(
        "-m",
        "train.report",
        *runs,
        "--svm",
        f"--data_dir={data_dir}",
    )
    assert json.loads((runs[0] / "results.json").read_text())["top1"] >= 0.985
    for words in ("resnet20_an", "resnet20_bn", "SVM"):
        assert words in done.stdout
