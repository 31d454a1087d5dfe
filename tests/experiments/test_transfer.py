"""The experiment on transfer: what its runs share, and in what they differ."""

import types

import pytest

from experiments import transfer
from train import config, recipes
from train.detection import parameters
from train.engine import run_directory


@pytest.fixture
def values(tmp_path):
    return types.SimpleNamespace(
        out=tmp_path, records="records", data="idx:clothes", steps=200
    )


def parsed(run):
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in run.flags)
    return parameters.parse(
        flags["experiment"], [flags["config_file"]], None, int(flags["seed"])
    ).as_dict()


def differences(values, one, other):
    runs = [parsed(transfer.detector(values, *case)) for case in (one, other)]
    return {name: (a, b) for name, a, b in run_directory.differences(*runs)}


def test_starts_differ_in_the_weights_alone(values):
    found = differences(values, (1, "AN", "scratch"), (1, "AN", "classifier"))
    assert found == {"task.weights": ("", f"{values.out}/classifier_AN")}


def test_networks_differ_in_the_backbone_alone(values):
    found = differences(values, (1, "BN", "scratch"), (1, "AN", "scratch"))
    names = "resnet14_w16_bn", "resnet14_w16_an"
    assert found == {"task.model.backbone.zoo.name": names}


def test_classifiers_have_the_network_of_the_detectors(values):
    for network in transfer.NETWORKS:
        name, *others = transfer.classifier(values, network).flags
        sets = [flag.removeprefix("--set=") for flag in others if "--set=" in flag]
        recipe = config.override(recipes.create_recipe(name.split("=")[1]), sets)
        zoo = parsed(transfer.detector(values, 0, network, "classifier"))
        zoo = zoo["task"]["model"]["backbone"]["zoo"]
        assert zoo["name"] == recipe.model.name
        assert zoo["mean"] == [*recipe.data.mean] and zoo["std"] == [*recipe.data.std]


def test_schedules_end_with_the_steps(values):
    trainer = parsed(transfer.detector(values, 0, "BN", "scratch"))["trainer"]
    rate = trainer["optimizer_config"]["learning_rate"]
    assert trainer["train_steps"] == rate["cosine"]["decay_steps"] == values.steps


def test_summary_has_mean_and_range_of_the_seeds():
    rows = [
        {"network": network, "start": start, **dict.fromkeys(transfer.OUTCOMES, value)}
        for network in transfer.NETWORKS
        for start in transfer.STARTS
        for value in (0.1, 0.2, 0.6)
    ]
    table = [*transfer.summary(rows)]
    assert [row[:2] for row in table] == [
        *(("BN", "scratch"), ("BN", "classifier")),
        *(("AN", "scratch"), ("AN", "classifier")),
    ]
    assert {cell for row in table for cell in row[2:]} == {"0.300 (0.100-0.600)"}
