"""Path arguments, and paths that TensorFlow would read as patterns."""

import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

import train.checkpoint
from benchmarks import __main__ as benchmark
from tests.train.engine.test_checkpoint import SPEC, build
from train import (
    __main__,
    cli,
    config,
    evaluate,
    paths,
    predict,
    prepare,
    recipes,
    report,
    serve_check,
)
from train.cli import UsageError
from train.engine import checkpoint, run, run_directory
from train.export import __main__ as export_command
from train.export import check, runtimes, write
from train.input import dataset

PATTERNS = ("lr[12]", "lr*", "lr?", "lr[", "lr]", "lr\\1", "a/lr[1]/b")
NO_PATHS = (
    *("", "a\nb", "a\0b", "a\x7fb", "a\udcffb", "gs://bucket/run", "a" * 256),
    *("a/" * 2100, "~nobody-has-this-name/x"),
)
LITERAL = (
    (__main__, ("--recipe=digits",), "--workdir="),
    (evaluate, (), "--workdir="),
    (export_command, (), "--workdir="),
    (export_command, ("--workdir=run",), "--out="),
)
OTHERS = (
    *((module, (), "--data_dir=") for module in (__main__, evaluate, export_command)),
    *((module, (), "--data_dir=") for module in (prepare, report, serve_check)),
    (export_command, (), "--weights="),
    (export_command, (), "--labels="),
    (prepare, (), "--manual_dir="),
    (report, (), "--csv="),
    (benchmark, (), "--csv="),
    (benchmark, (), "--plot="),
)


@pytest.mark.parametrize(("module", "typed", "flag"), LITERAL)
def test_patterns_are_usage_errors_as_flags(call, module, typed, flag):
    for path in PATTERNS:
        flags = [*typed, f"{flag}{path}"]
        error = call(module, *flags, expected=cli.USAGE).stderr
        assert error.count("\n") == 1
        assert "not contain * ? [ ] \\, which" in error


@pytest.mark.parametrize(("module", "typed", "flag"), LITERAL + OTHERS)
def test_invalid_paths_are_usage_errors(call, module, typed, flag):
    for path in NO_PATHS:
        if flag != "--data_dir=" or "://" not in path:
            flags = [*typed, f"{flag}{path}"]
            error = call(module, *flags, expected=cli.USAGE).stderr
            assert error.startswith(f"usage error: The path {flag[:-1]} must ")
            assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "typed"),
    [
        (train.checkpoint, ("digest", "runs/lr[12]")),
        (predict, ("runs/lr[12]", "image.png")),
        (serve_check, ("runs/lr[12]/export/60",)),
        (benchmark, ("serve", "runs/lr[12]/export/60")),
    ],
)
def test_patterns_are_usage_errors_as_arguments(
    call, module, typed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(b"")
    error = call(module, *typed, expected=cli.USAGE).stderr
    assert "must not contain *" in error and "[12]" in error


@pytest.mark.parametrize(("module", "typed", "flag"), LITERAL + OTHERS)
def test_tilde_is_expanded_in_flags(module, typed, flag, tmp_path, monkeypatch):
    del typed
    monkeypatch.setenv("HOME", str(tmp_path))
    before = {*flags.FLAGS}
    try:
        module.define_flags()
        name = flag.strip("-=")
        parsed = flags.FLAGS[name].parser.parse("~/x.png")
    finally:
        for name in {*flags.FLAGS} - before:
            delattr(flags.FLAGS, name)
    assert parsed == f"{tmp_path}/x.png"


def test_tilde_is_expanded_in_recipes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = config.override(
        recipes.create_recipe("digits"),
        ["data.name=folder:~/x", "model.weights=~/runs/one"],
    )
    assert recipe.data.name == f"folder:{tmp_path}/x"
    assert recipe.model.weights == f"{tmp_path}/runs/one"
    assert config.Data("idx:~").name == f"idx:{tmp_path}"
    assert config.Data("mnist/~").name == "mnist/~"


def test_home_directory_that_is_a_pattern_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "a[1]"))
    assert paths.expand("~/x", "--csv") == f"{tmp_path}/a[1]/x"
    with pytest.raises(
        UsageError, match=r"--workdir must not contain .*Received: .*a\[1\]/x"
    ):
        paths.literal("~/x", "--workdir")


def test_directory_of_an_output_must_exist(tmp_path):
    file = tmp_path / "x.csv"
    assert paths.output(str(file), "--csv") == str(file)
    assert paths.output("x.csv", "--csv") == "x.csv"
    for path in (tmp_path, tmp_path / "none" / "x.csv", f"{file}/"):
        with pytest.raises(
            UsageError, match="--csv must be a file in an existing directory"
        ):
            paths.output(str(path), "--csv")


def test_pattern_does_not_affect_other_runs(tmp_path):
    neighbour = tmp_path / "lr1" / "checkpoints"
    neighbour.mkdir(parents=True)
    files = [neighbour / f"ckpt-{step}.index" for step in range(5)]
    for file in files:
        file.write_text("not mine")
    model, state = keras.Sequential(), checkpoint.new_state()
    optimizer = keras.optimizers.SGD()
    for enter in (
        lambda path: run.Run.open(path, None, None).__enter__(),
        lambda path: checkpoint.Checkpoints(path, model, optimizer, state),
        checkpoint.best_checkpoint,
        checkpoint.has_checkpoint,
        lambda path: write.export(None, path),
        lambda path: list(check.check(path)),
        lambda path: runtimes.load("saved_model", path),
    ):
        with pytest.raises(UsageError, match="which TensorFlow reads as patterns"):
            enter(tmp_path / "lr[12]")
    assert sorted(neighbour.iterdir()) == files
    assert [path.name for path in tmp_path.iterdir()] == ["lr1"]


def test_patterns_are_allowed_where_tensorflow_does_not_read_them(
    tmp_path, monkeypatch
):
    """They are allowed in image folders, prepared data and the working directory."""
    image = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()
    root = tmp_path / "holiday[1]"
    for split in ("train", "test"):
        for name in ("cat*", "do?g"):
            directory = root / split / name
            directory.mkdir(parents=True)
            for number in range(5):
                (directory / f"[{number}].png").write_bytes(image)
    images = dataset.load(config.Data(f"folder:{root}", image_size=8))
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 8,
        "validation": 2,
        "test": 10,
    }
    assert (
        len(dataset.load(config.Data("digits"), tmp_path / "a[1]").splits["test"]) > 99
    )
    monkeypatch.chdir(root)
    model, optimizer, state = build(step=7)
    run_directory.claim(pathlib.Path("run"), SPEC)
    checkpoint.Checkpoints("run", model, optimizer, state).save(best=True)
    assert checkpoint.best_checkpoint(pathlib.Path("run"))[1] == 7
    assert sorted(os.listdir("run")) == ["best", "config.json"]


def test_output_is_not_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="--html must be a file in an existing"):
        paths.output(str(tmp_path / "pipe"), "--html")
