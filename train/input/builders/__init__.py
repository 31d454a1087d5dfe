"""Data sets by name, each as a tensorflow-datasets builder."""

import contextlib
import difflib
import functools
import io
import os
import pathlib

import tensorflow_datasets as tfds

from train import cli, config, paths
from train.cli import RunError, UsageError
from train.input.builders import checks
from train.input.builders.digits import Digits
from train.input.builders.folder import Folder
from train.input.builders.idx import Idx

# Data sets whose images are prepared once, in `data_dir`.
PREPARED_HERE = {"digits": Digits, "idx": Idx}


def create_builder(
    settings: config.Data, data_dir: str | None
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a recipe's data set, prepared to be read.

    Data sets that a package contains or that local files hold are prepared here. Those
    of tensorflow-datasets must have been prepared: training downloads nothing.

    Raises:
        UsageError: If there is no data set of this name.
        RunError: If it is not prepared, or its files are missing or damaged.
    """
    if settings.name != settings.name.encode(errors="replace").decode():
        raise UsageError(f"Expected --data in UTF-8. Received: {settings.name!r}.")
    if not is_local(settings.name):
        return _open_prepared(settings.name, data_dir)
    kind, _, directory = settings.name.partition(":")
    if settings.class_names and kind != "idx":
        raise UsageError(
            "Recipe field data.class_names is for idx:DIR only. Expected "
            "'--set=data.class_names=()', which leaves the names to the data set. "
            f"Received: {settings.class_names} with {settings.name}."
        )
    if kind != "digits" and not os.path.isdir(directory):
        raise RunError(f"Expected a directory. Received: --data={settings.name}.")
    if kind == "folder":
        return Folder(directory)
    if data_dir is not None:
        data_dir = paths.expand(os.fspath(data_dir), "data_dir")
    arguments = [directory] if directory else []
    if settings.class_names:
        arguments.append(settings.class_names)
    create = functools.partial(PREPARED_HERE[kind], *arguments, data_dir=data_dir)
    builder = create()
    if builder.info.splits:
        return builder
    parent = pathlib.Path(builder.data_dir).parent
    parent.mkdir(parents=True, exist_ok=True)
    with cli.lock(parent):  # other workers may prepare the same data set
        checks.remove_remains(builder)
        builder = create()
        if not builder.info.splits:
            print(f"preparing {settings.name} in {builder.data_dir}", flush=True)
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):  # reports a download
                builder.download_and_prepare()
    return builder


def is_local(name: str) -> bool:
    """Returns whether one of our builders reads the data set, without a download."""
    return name == "digits" or name.startswith(config.PREFIXES)


def open_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a tensorflow-datasets data set, prepared or not.

    Raises:
        UsageError: If there is no data set of this name.
    """
    names = tfds.list_builders()
    base = name.split("/")[0].split(":")[0]
    location = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    if base not in names and not os.path.isdir(location / base):
        near = difflib.get_close_matches(name, [*names, "digits"], n=4)
        expected = config.DATA_SETS
        if near:
            expected += f" like {', '.join(near)}"
        raise UsageError(f"Unknown data set. Expected {expected}. Received: {name!r}.")
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (
        tfds.core.DatasetNotFoundError,
        AssertionError,
        AttributeError,
        ValueError,
    ) as error:
        raise UsageError(f"Cannot open data set {name!r}: {error}") from error
    except RuntimeError as error:  # cloud storage does not respond
        raise RunError(f"Cannot open data set {name!r}: {error}") from error


def _open_prepared(name, data_dir):
    builder = open_builder(name, data_dir)
    if not builder.info.splits:
        location = f" --data_dir={data_dir}" if data_dir else ""
        raise RunError(
            f"{name} is not prepared. Expected its files in {builder.data_dir}. "
            f"Prepare it with: python -m train.prepare --data={name}{location}"
        )
    return builder
