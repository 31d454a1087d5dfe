"""A run, an export and a model written by an earlier commit.

They are from commit 0c6c56b, before the modules of `train` moved into packages: a
MobileNetV2-AN of width 0.1, stopped at step 8 of 12.
"""

import tarfile

import keras
import numpy as np
import pytest
from conftest import ROOT

import an_keras  # noqa: F401 - registers the layers
import train.__main__
from train import evaluate, serve_check

FLAGS = (
    "--recipe=digits",
    "--steps=12",
    "--set=model.name=mobilenetv2_an",
    "--set=model.options={'width_multiplier': 0.1}",
    "--set=data.image_size=32",
    "--set=steps_per_loop=4",
    "--set=evaluate_every=0.01",
)


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    directory = tmp_path_factory.mktemp("older")
    with tarfile.open(ROOT / "tests" / "golden" / "older_files.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "older"


def test_older_model_computes_the_same_logits(older):
    model = keras.models.load_model(older / "model.keras")
    arrays = np.load(older / "outputs.npz")
    logits = np.asarray(model(arrays["inputs"], training=False))
    np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_older_run_is_evaluated_and_resumed(older, call, data_dir):
    workdir, place = f"--workdir={older / 'run'}", f"--data_dir={data_dir}"
    done = call(evaluate, workdir, place)
    assert "(355 images, step 4)" in done.stdout
    done = call(train.__main__, *FLAGS, workdir, place)
    assert "going on from step 8" in done.stdout
    assert f"export   SavedModel in {older / 'run' / 'export'}/" in done.stdout


@pytest.mark.slow
def test_older_export_passes_its_check(older, call, data_dir):
    version = older / "export" / "4"
    done = call(serve_check, version, f"--data_dir={data_dir}")
    for line in ("signatures features, image_bytes, serving_default", "equal answers"):
        assert line in done.stdout
