"""Runs of an experiment: training, evaluation, preemption, devices, clear errors."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT
from train.cli import FAILED, PREEMPTED, USAGE, UsageError
from train.detection import __main__ as command_module
from train.detection import parameters

NAME = "--experiment=an_maskrcnn_scenes"


@pytest.fixture
def call_run(call, config, tmp_path):
    """Runs the command in this process, with flags that it should refuse."""

    def call_run(*flags, expected):
        arguments = (NAME, f"--config_file={config}", f"--model_dir={tmp_path / 'run'}")
        return call(command_module, *arguments, *flags, expected=expected).stderr

    return call_run


def start(config, run, *flags):
    """Starts the command in a fresh process."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "train.detection", NAME),
            *(f"--config_file={config}", f"--model_dir={run}", *flags),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def metrics(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def rows(run):
    return [
        (int(row["step"]), row["split"])
        for row in metrics(run)
        if row["metric"] in ("total_loss", "AP")
    ]


@pytest.mark.slow
def test_a_stopped_run_is_resumed_and_evaluated(config, tmp_path, call_run):
    run = tmp_path / "run"
    with start(config, run) as process:
        for line in process.stdout:
            if line.startswith("step 2/6"):
                process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
    assert process.returncode == PREEMPTED, errors
    saved = rows(run)
    assert saved in ([(2, "train"), (4, "train")], [(2, "train")])

    process = start(config, run)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert f"steps    {saved[-1][0]} of 6 done" in output
    trained = [(step, "train") for step in (2, 4, 6)]
    assert rows(run) == [*trained, (6, "validation")]
    results = json.loads((run / "results.json").read_text())
    assert results["step"] == 6 and 0 <= results["mask_AP50"] <= 1
    for name in ("train", "validation"):
        assert [*(run / name).glob("events*")]

    other = call_run("--params_override=trainer.train_steps=8", expected=USAGE)
    assert "the directory of another run" in other
    assert "trainer.train_steps 6 -> 8" in other
    assert "train_data.seed 0 -> 1" in call_run("--seed=1", expected=USAGE)

    (run / "metrics.csv").write_bytes(b"\xff\xfe")
    assert "metrics.csv is damaged" in call_run(expected=FAILED)
    (run / "metrics.csv").write_text("step,split\n\n6\n")
    (data,) = run.glob("ckpt-6.data*")
    data.write_bytes(data.read_bytes()[:1000])
    assert "ckpt-6 is damaged" in call_run(expected=FAILED)


@pytest.mark.slow
def test_two_devices_share_the_batch_and_the_evaluation(config, tmp_path):
    run = tmp_path / "run"
    steps = "--params_override=trainer.train_steps=2"
    process = start(config, run, steps, "--strategy=mirrored", "--logical_cpus=2")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert rows(run) == [(2, "train"), (2, "validation")]


def test_experiments_are_suggested(call):
    flags = ("--experiment=an_maskrcnn_coca", "--model_dir=x")
    done = call(command_module, *flags, expected=USAGE)
    assert "like an_maskrcnn_coco" in done.stderr


@pytest.mark.parametrize("flags", [(), (NAME,)])
def test_experiment_and_directory_are_required(call, flags):
    assert "Received: none" in call(command_module, *flags, expected=USAGE).stderr


@pytest.mark.parametrize(
    "override",
    [
        *("task.none=1", "{task", "none.yaml", "task.model=3", "trainer: [1]", "5"),
        *("x=y=z", "task=null", "task.model=null", "trainer=null", "runtime=null"),
        *(
            "trainer.train_steps=null",
            "trainer.train_steps=-1",
            "trainer.train_steps=x",
        ),
        *("trainer.validation_interval=0", "trainer.optimizer_config=null"),
        *("task.train_data.global_batch_size=0", "task.train_data.seed=-5"),
        *("task.train_data.seed=99999999999", "task.train_data.dtype=foo"),
        *("task.train_data.input_path=3", "{task: {train_data: {input_path: [1]}}}"),
        *("task.losses.l2_weight_decay=.nan", "{task: {stage_weights: [a]}}"),
        *("{task: {model: {input_size: [a, b, 3]}}}", "runtime.enable_xla=1"),
        *("{task: {model: {input_size: [100, 64, 3]}}}", "task.model.num_classes=-1"),
        *("{task: {model: {input_size: [64, 64, 1]}}}", "runtime.num_gpus=true"),
        *("runtime.mixed_precision_dtype=foo", "runtime.distribution_strategy=tpu"),
        "task.model.backbone.zoo.mean=[0.5,0.5]",
        "task.model.backbone.zoo.mean=[128]",
        "task.model.backbone.zoo.std=[0]",
        "task.model.backbone.zoo.std=[x]",
    ],
)
def test_wrong_parameters_are_usage_errors(call_run, override):
    message = call_run(f"--params_override={override}", expected=USAGE)
    assert "Expected parameters of the experiment" in message
    assert "is_strict" not in message and "NoneType" not in message


def test_other_optimizers_can_be_chosen(config):
    optimizer = "{optimizer: {type: adamw}, learning_rate: {type: constant}}"
    override = f"trainer: {{optimizer_config: {optimizer}}}"
    chosen = parameters.parse("an_maskrcnn_scenes", [str(config)], override)
    assert chosen.trainer.optimizer_config.optimizer.type == "adamw"


def test_runs_of_versions_with_fewer_parameters_are_resumed(config, tmp_path):
    given = parameters.parse("an_maskrcnn_scenes", [str(config)], None)
    stored = yaml.safe_load(yaml.safe_dump(given.as_dict()))
    del stored["task"]["model"]["backbone"]["zoo"]["mean"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(stored))
    parameters.require_same(given, tmp_path)
    given.task.model.backbone.zoo.mean = [0.5]
    with pytest.raises(UsageError, match=r"zoo.mean \[\] -> \[0.5\]"):
        parameters.require_same(given, tmp_path)


def test_missing_files_of_parameters_are_usage_errors(call_run):
    message = call_run("--config_file=none.yaml", expected=USAGE)
    assert "none.yaml" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.model.backbone.zoo.name=none", "none"),
        ("task.model.backbone.zoo.frozen_level=7", "`frozen_level` must be one of"),
        ("task.model.norms.mask_head=an_gn", "must be none, bn or gn in the pyramid"),
        ("task.model.norms.box_head=x", "must be one of none, bn, gn, an_gn"),
        ("{task: {stage_weights: [1, 2]}}", "Expected 1 numbers"),
        ("trainer.summary_interval=3", "multiple of `steps_per_loop`"),
    ],
)
def test_networks_that_cannot_be_built_are_usage_errors(call_run, override, message):
    assert message in call_run(f"--params_override={override}", expected=USAGE)


def test_data_must_have_been_prepared(call_run, tmp_path):
    override = f"--params_override=task.train_data.input_path={tmp_path}/none-*"
    assert "No records at" in call_run(override, expected=FAILED)


def test_classes_must_be_those_of_the_data(call_run):
    message = call_run("--params_override=task.model.num_classes=6", expected=FAILED)
    assert "Expected 5 categories, numbered from 1. Received: 3" in message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda coco: coco.pop("images"), "is damaged"),
        (lambda coco: coco.update(images=[]), "Expected all images of the records"),
        (lambda coco: coco["images"].pop(0), "Expected all images of the records"),
    ],
)
def test_annotations_must_be_those_of_the_records(
    call_run, records, tmp_path, edit, message
):
    coco = json.loads((records / "instances_val2017.json").read_text())
    edit(coco)
    path = tmp_path / "other.json"
    path.write_text(json.dumps(coco))
    override = f"--params_override=task.annotation_file={path}"
    assert message in call_run(override, expected=FAILED)


def test_missing_annotations_are_named(call_run):
    override = "--params_override=task.annotation_file=none.json"
    assert "No annotations at none.json" in call_run(override, expected=FAILED)


@pytest.mark.parametrize(
    "files",
    [
        {"ckpt-2.index": b""},
        {"checkpoint": b"\xff\x00junk: {"},
        {"checkpoint": b'model_checkpoint_path: "foo"'},
    ],
)
def test_damaged_checkpoints_are_not_trained_over(call_run, tmp_path, files):
    (tmp_path / "run").mkdir()
    for name, content in files.items():
        (tmp_path / "run" / name).write_bytes(content)
    assert "are damaged" in call_run(expected=FAILED)


def test_evaluation_needs_a_checkpoint(call_run):
    assert "has no checkpoint" in call_run("--mode=eval", expected=FAILED)


@pytest.mark.slow
def test_a_wrong_parameter_can_be_corrected_in_the_same_directory(call_run):
    for wrong in ("x", "y"):
        override = f"--params_override=task.model.norms.box_head={wrong}"
        assert f"norm={wrong}" in call_run(override, expected=USAGE)


def test_workers_train_only(call_run):
    message = call_run("--strategy=multi_worker", expected=USAGE)
    assert "Expected --mode=train" in message


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "maskrcnn_mobilenetv2_an_an_gn_coco",
        "maskrcnn_resnet50_an_an_gn_coco",
        "maskrcnn_resnet101_an_an_gn_coco",
        "maskrcnn_densenet121_an_an_gn_coco",
        "maskrcnn_aognet_12m_an_an_gn_coco",
        "cascadercnn_resnet101_an_coco",
    ],
)
def test_detectors_of_full_size_train_and_evaluate(config, tmp_path, name):
    run = tmp_path / "run"
    override = "trainer.train_steps=2,task.train_data.global_batch_size=2"
    arguments = (f"--experiment={name}", f"--params_override={override}")
    process = start(config, run, *arguments)
    _, status, usage = os.wait4(process.pid, 0)
    errors = process.communicate()[1]
    assert os.waitstatus_to_exitcode(status) == 0, errors
    losses = [float(row["value"]) for row in metrics(run) if "loss" in row["metric"]]
    assert losses and np.isfinite(losses).all()
    assert rows(run) == [(2, "train"), (2, "validation")]
    print(f"{name}: {usage.ru_maxrss / 2**20:.1f} GiB")


@pytest.mark.long
def test_truncated_records_end_training_with_a_clear_error(config, records, tmp_path):
    damaged = shutil.copytree(records, tmp_path / "damaged")
    (path,) = damaged.glob("train2017-*")
    path.write_bytes(path.read_bytes()[:-100])
    flag = f"--params_override=task.train_data.input_path={damaged}/train2017-*"
    process = start(config, tmp_path / "run", flag)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == FAILED
    assert "A file of records is damaged" in errors
