"""The Makefile chooses a supported Python, and says what it found if there is none."""

import shutil
import subprocess

import pytest
from conftest import ROOT


@pytest.fixture
def make(tmp_path):
    """Runs make where only the interpreters in `found`, {name: version}, exist."""

    def run(*arguments, found, venv=None):
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "sed").symlink_to(shutil.which("sed"))
        for name, version in found.items():
            write_interpreter(programs / name, version)
        if venv:
            write_interpreter(tmp_path / "venv" / "bin" / "python", venv)
        return subprocess.run(
            [shutil.which("make"), f"VENV={tmp_path / 'venv'}", *arguments],
            cwd=ROOT,
            env={"PATH": str(programs)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def write_interpreter(path, version):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    "found, chosen",
    [
        ({"python3.11": "3.11", "python3.13": "3.13", "python3": "3.13"}, "python3.11"),
        ({"python3.13": "3.13", "python3": "3.10"}, "python3.13"),
        ({"python3": "3.13"}, "python3"),
        ({"python3": "3.14", "python": "3.12"}, "python"),
    ],
)
def test_first_supported_python_is_used(make, found, chosen):
    assert make("-n", "venv", found=found).stdout.startswith(f"{chosen} -m venv ")


@pytest.mark.parametrize(
    "found, received",
    [
        ({"python3": "3.10"}, "Python 3.10 (python3)"),
        (
            {"python3": "3.14", "python": "2.7"},
            "Python 3.14 (python3), Python 2.7 (python)",
        ),
        ({}, "no python3.11, python3.12, python3.13, python3, python on PATH"),
    ],
)
def test_unsupported_pythons_are_named(make, found, received):
    done = make("venv", found=found)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: unsupported Python. Expected: 3.11, 3.12, 3.13. "
        f"Received: {received}. Use make PYTHON=/path/to/python."
    )


@pytest.mark.parametrize(
    "python, received",
    [("old", "Python 3.9 (old)"), ("missing", "no missing on PATH")],
)
def test_python_that_was_asked_for_is_not_replaced(make, python, received):
    found = {"python3.12": "3.12", "old": "3.9"}
    done = make("venv", f"PYTHON={python}", found=found)
    assert done.returncode == 2
    assert f"Received: {received}. " in done.stderr


@pytest.mark.parametrize(
    "venv, arguments, is_created",
    [
        ("3.12", [], False),
        ("3.12", ["PYTHON=python3.12"], False),
        ("3.12", ["PYTHON=python3.11"], True),
        ("3.10", [], True),
        (None, [], True),
    ],
)
def test_environment_is_kept_while_its_python_is_right(
    make, venv, arguments, is_created
):
    found = {"python3.11": "3.11", "python3.12": "3.12"}
    done = make("-n", "docs", *arguments, found=found, venv=venv)
    assert done.returncode == 0, done.stderr
    assert ("-m venv --clear" in done.stdout) == is_created


def test_environment_is_enough_if_no_supported_python_is_on_the_path(make):
    done = make("-n", "docs", found={"python3": "3.10"}, venv="3.12")
    assert done.returncode == 0, done.stderr


def test_package_declares_the_supported_pythons():
    makefile = (ROOT / "Makefile").read_text()
    (supported,) = (
        line.split(" := ")[1].split()
        for line in makefile.splitlines()
        if line.startswith("SUPPORTED :=")
    )
    setup = (ROOT / "setup.cfg").read_text()
    for version in supported:
        assert f"Programming Language :: Python :: {version}\n" in setup
    assert f"python_requires = >={supported[0]}\n" in setup


def test_other_supported_pythons_are_tested_in_environments_of_their_own(make):
    found = {"python3.11": "3.11", "python3.13": "3.13", "python3": "3.10"}
    printed = make("-n", "test-pythons", found=found).stdout
    assert "python3.13 -m venv --clear" in printed and "venv-python3.13" in printed
    assert "python3.12" not in printed and "python3.11 -m venv" not in printed
