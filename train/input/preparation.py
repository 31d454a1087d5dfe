"""Downloads, prepares and checks a data set."""

import os
import pathlib
import shlex
import sys
import textwrap

import tensorflow as tf
import tensorflow_datasets as tfds

from train import cli, config
from train.cli import RunError
from train.input import builders, dataset, pipeline
from train.input.builders import checks

FAILURES = (
    AssertionError,
    ImportError,
    OSError,
    ValueError,
    tf.errors.OpError,
    tfds.download.DownloadError,
    tfds.core.download.download_manager.NonMatchingChecksumError,
    tfds.core.download.extractor.ExtractError,
)


def prepare(name: str, data_dir: str | None, manual_dir: str | None) -> None:
    """Prepares a data set if necessary, checks it and prints its splits.

    Raises:
        UsageError: If there is no data set of this name.
        RunError: If it cannot be prepared or used for training.
    """
    settings = config.Data(name, image_size=8)
    if not builders.is_local(name):
        builder = builders.open_builder(name, data_dir)
        dataset.check_features(builder, name)
        if builder.info.splits:
            print(f"{name} was prepared before")
        else:
            download_and_prepare(builder, manual_dir)
    builder = builders.create_builder(settings, data_dir)
    in_folders = isinstance(builder, builders.Folder)
    if builders.is_local(name):
        data = dataset.read(builder, settings)  # decodes the images of a folder
        for split in () if in_folders else data.splits:
            for _ in pipeline.evaluation_batches(data, split, 256, standardized=False):
                pass
    if not in_folders:
        checks.check_shards(builder)
    print(f"{name} is ready in {builder.data_dir}")
    for split, info in sorted(builder.info.splits.items()):
        files, size = info.num_examples, info.num_bytes
        if not in_folders:
            files = len(info.filepaths)
            size = sum(checks.size(pathlib.Path(path)) for path in info.filepaths)
        print(
            f"{split:<12}{info.num_examples:>10,} images{files:>10,} files"
            f"{size / checks.GIB:>10.3f} GiB"
        )
    if in_folders and builder.left_out:
        print(f"left out    {builder.left_out}")
    location = [f"--data_dir={data_dir}"] if data_dir else []
    print(f"train with: {shlex.join([f'--data={name}', *location])}")


def download_and_prepare(
    builder: tfds.core.DatasetBuilder, manual_dir: str | None
) -> None:
    """Checks archives and free space, then prepares a tensorflow-datasets data set.

    Args:
        builder: Builder of a data set that is not prepared.
        manual_dir: Directory of archives that the user has downloaded. `None` selects
            the directory where tensorflow-datasets expects them.

    Raises:
        RunError: If something is missing, or the preparation failed.
    """
    path = pathlib.Path(builder.data_dir)
    if path.exists():
        raise RunError(
            f"{path} holds no prepared data set. Expected dataset_info.json, or no "
            f"such directory. Received: {', '.join(os.listdir(path)[:5]) or 'nothing'}."
        )
    default = pathlib.Path(builder.data_dir_root, "downloads", "manual")
    manual_dir = pathlib.Path(manual_dir).expanduser() if manual_dir else default
    checks.check_archives(builder, manual_dir)
    needed = checks.needed_space(builder)
    removable = sum(map(checks.size, checks.remains(builder)))
    checks.check_space(path.parent, needed, removable)
    size = f"{needed / checks.GIB:.1f} GiB" if needed else "unknown, not checked"
    print(f"preparing {builder.name} in {path}; space needed: {size}", flush=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    path.parent.mkdir(parents=True, exist_ok=True)
    with cli.lock(path.parent, "is preparing a data set in"):
        try:
            checks.remove_remains(builder)
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        except FAILURES as error:
            reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 500)}"
            raise RunError(f"{builder.name} was not prepared. {reason}") from error
