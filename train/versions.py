"""Versions of packages and of this checkout, to repeat a result."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess

PACKAGES = (
    *("an-keras", "keras", "numpy"),
    *("tensorflow", "tensorflow-datasets", "tf-models-official"),
)


def packages(*names: str) -> dict[str, str]:
    """Returns the versions of packages, empty for those that are not installed."""
    found = {}
    for name in names or PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def commit() -> str:
    """Returns the commit of this checkout, with -dirty if tracked files have changed.

    Empty if these files are not in the root of a git repository.
    """
    root = pathlib.Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or not shutil.which("git"):
        return ""
    # Git's own variables, as in its hooks, can name another repository; a tag is no
    # commit.
    own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    described = subprocess.run(
        [
            *("git", "-C", root, "describe", "--always", "--dirty", "--abbrev=40"),
            "--exclude=*",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=own,
    )
    return described.stdout.strip()
