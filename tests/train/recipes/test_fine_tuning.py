"""Runs that train a part of their network."""

import json

import numpy as np
import pytest

import model_zoo
import train.__main__
from train.engine import models


@pytest.fixture
def start(tmp_path):
    """A network with weights in a file."""
    model = model_zoo.create_model("resnet8_an", input_shape=(8, 8, 1))
    model.save_weights(tmp_path / "start.weights.h5")
    return model, tmp_path / "start.weights.h5"


@pytest.mark.parametrize(
    ("recipe", "trained"),
    [
        ("digits_fashion_mnist", {"moving statistics", "norms", "others"}),
        ("digits_fashion_mnist_norms", {"moving statistics", "norms"}),
        ("digits_fashion_mnist_frozen_norms", {"others"}),
    ],
)
def test_run_changes_only_what_its_recipe_trains(
    recipe, trained, start, tmp_path, data_dir, call
):
    model, weights = start
    workdir = tmp_path / "run"
    flags = f"--recipe={recipe}", f"--workdir={workdir}", f"--data_dir={data_dir}"
    small = "--set=model.name=resnet8_an", f"--set=model.weights={weights}"
    fixed = "--set=data.mean=0.3", "--set=data.std=0.4", "--steps=3", "--noexport"
    shown = call(train.__main__, *flags, *small, *fixed).stdout
    assert (" of them trained\n" in shown) == (len(trained) < 3)
    results = json.loads((workdir / "results.json").read_text())
    assert results["parameters"] == models.trainable_parameters(model) == 80_138
    after, _, step = models.load_last(workdir, averaged=False)
    assert step == 3
    for old, new in zip(model.variables, after.variables, strict=True):
        kind = "norms" if "norm" in new.path else "others"
        if "moving" in new.name:
            kind = "moving statistics"
        has_changed = not np.array_equal(old, new)
        expected = kind in trained or "predictions" in new.path
        assert has_changed == expected, new.path
