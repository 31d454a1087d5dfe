"""Versions that are saved with results."""

import importlib.metadata
import subprocess

import pytest
from conftest import ROOT

from train import versions


def test_packages_have_their_versions_and_others_none():
    found = versions.packages("keras", "no-such-package")
    assert found == {
        "keras": importlib.metadata.version("keras"),
        "no-such-package": "",
    }
    assert "tensorflow" in versions.packages()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit that holds the module."""
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "train" / "versions.py"))

    def git(*arguments):
        identity = "-c", "user.name=a", "-c", "user.email=a@b.c"
        command = ["git", "-C", tmp_path, *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "versions.py").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return git


def test_commit_is_that_of_the_checkout(checkout, tmp_path):
    commit = checkout("rev-parse", "HEAD").stdout.strip()
    assert versions.commit() == commit and len(commit) == 40
    (tmp_path / "train" / "versions.py").write_text("2\n")
    assert versions.commit() == f"{commit}-dirty"


def test_tags_and_variables_of_git_do_not_change_the_commit(checkout, monkeypatch):
    commit = checkout("rev-parse", "HEAD").stdout.strip()
    checkout("tag", "-a", "v9", "-m", "nine")
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    assert versions.commit() == commit


def test_unpacked_archive_has_no_commit(tmp_path, monkeypatch):
    place = ROOT / "runs" / "unpacked" / "train" / "versions.py"  # in a repository
    monkeypatch.setattr(versions, "__file__", str(place))
    assert versions.commit() == ""
