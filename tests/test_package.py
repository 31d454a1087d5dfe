"""The wheel: its contents, and that it works in a separate environment."""

import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow  # reaches PyPI


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    arguments = ["-m", "build", "--wheel", "--outdir", out, ROOT]
    subprocess.run([sys.executable, *arguments], check=True)
    return next(out.glob("*.whl"))


def test_wheel_contains_two_packages_with_types_and_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    metadata = next(name for name in top if name.endswith(".dist-info"))
    assert top == {"an_keras", "model_zoo", metadata}
    for name in ("an_keras/py.typed", "model_zoo/py.typed"):
        assert name in names
    for name in ("LICENSE", "NOTICE"):
        assert f"{metadata}/licenses/{name}" in names
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in ("an_keras", "model_zoo")
        for path in (ROOT / package).rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}
    assert "model_zoo/imagenet_classes.tsv" in names
    assert "model_zoo/pretrained/resnet20_an.fashion_mnist.weights.h5" in names


def test_wheel_works_with_only_jax_installed(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", f"{wheel}[jax]"]
    subprocess.run(install, check=True)
    program = (
        "import importlib.util, numpy as np\n"
        "for name in ('tensorflow', 'torch', 'train'):\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        "import an_keras, model_zoo\n"
        "name = 'resnet20_an.fashion_mnist'\n"
        "model = model_zoo.create_model(name, input_shape=(8, 8, 1))\n"
        "x = model_zoo.preprocess_input(np.ones((2, 8, 8, 1)), name)\n"
        "assert model_zoo.decode_predictions(np.eye(1000)[:1])[0][0][1] == 'tench'\n"
        "print(an_keras.__version__, np.asarray(model(x)).shape)\n"
    )
    done = subprocess.run(
        [python, "-c", program],
        env={"KERAS_BACKEND": "jax", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1)[1].strip() == "(2, 10)"


def test_source_distribution_contains_the_training_scripts(tmp_path):
    arguments = ["-m", "build", "--sdist", "--outdir", tmp_path, ROOT]
    subprocess.run([sys.executable, *arguments], check=True)
    archive = next(tmp_path.glob("*.tar.gz"))
    names = subprocess.run(
        ["tar", "tzf", archive], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    inside = {name.split("/", 1)[1] for name in names if "/" in name}
    for name in ("train/__main__.py", "train/recipes/digits.py", "Makefile", "NOTICE"):
        assert name in inside
