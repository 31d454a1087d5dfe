"""The example for your own photos, on a folder of a few images."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT
from image_files import write_images

SCRIPT = ROOT / "examples" / "own_photos.sh"


def run(*arguments):
    python = os.path.dirname(sys.executable)
    return subprocess.run(
        ["sh", SCRIPT, *map(str, arguments)],
        env={**os.environ, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_prints_its_usage():
    done = run("photos")
    assert done.returncode == 2 and done.stderr.startswith("usage: sh ")


@pytest.mark.slow
def test_script_trains_predicts_and_exports(tmp_path):
    write_images(tmp_path / "photos" / "train")
    small = ("--set=model.name=resnet8_an", "--set=data.image_size=8", "--steps=2")
    out = tmp_path / "run"
    done = run(tmp_path / "photos", out, *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((out / "predictions.csv").read_text().splitlines()) == 25
    assert (out / "mobile" / "2" / "model.tflite").is_file()
