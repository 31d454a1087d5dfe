"""Checks of a data set before and after it is prepared."""

import collections
import pathlib
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from train.cli import RunError

# Bytes of the files that must be in manual_dir. 0: the file must not be there.
ARCHIVES = {
    "imagenet2012": {
        "ILSVRC2012_img_train.tar": 147_897_477_120,
        "ILSVRC2012_img_val.tar": 6_744_924_160,
        "ILSVRC2012_img_test.tar": 0,  # has no labels: training refuses such a split
    }
}
GIB = 2**30
RECORD = 16  # bytes around a record in a TFRecord file
UNUSABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, not UTF-8, line ends
USABLE_NAMES = (
    "single-line UTF-8 names without control characters that differ in more than "
    "surrounding white space and the form of their accents"
)


def unusable_names(names: Sequence[str]) -> list[str]:
    """Returns the names that are ambiguous in labels.txt: not `USABLE_NAMES`."""

    def look(name):
        return unicodedata.normalize("NFC", name).strip()

    looks = collections.Counter(map(look, names))
    return [
        name
        for name in names
        if looks[look(name)] > 1
        or not look(name)
        or any(unicodedata.category(character) in UNUSABLE for character in name)
    ]


def check_class_names(names: Sequence[str], source: str) -> None:
    """Checks that names can be used as class names.

    Raises:
        RunError: If some cannot.
    """
    if odd := unusable_names(names):
        raise RunError(
            f"{source} has class names that cannot be used. Expected {USABLE_NAMES}. "
            f"Received: {', '.join(map(ascii, odd[:5]))}."
        )


def check_archives(builder: tfds.core.DatasetBuilder, manual_dir: pathlib.Path) -> None:
    """Checks that the archives that the user has to download are there and complete.

    Raises:
        RunError: If an archive is missing, has the wrong size, or must not be there.
    """
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return
    known = ARCHIVES.get(builder.name, {})
    sizes = {name: size(manual_dir / name) for name in known}
    wrong = [name for name in known if sizes[name] != known[name]]
    empty = not manual_dir.is_dir() or not any(manual_dir.iterdir())
    if wrong or empty:
        expected, received = (
            ", ".join(f"{name} {of[name] or 'no'} bytes" for name in wrong)
            for of in (known, sizes)
        )
        instructions = textwrap.shorten(builder.MANUAL_DOWNLOAD_INSTRUCTIONS, 300)
        raise RunError(
            f"{builder.name} is missing archives in --manual_dir={manual_dir}. "
            f"Expected: {expected or 'files'}. Received: {received or 'none'}. "
            f"{instructions}"
        )


def needed_space(builder: tfds.core.DatasetBuilder) -> int:
    """Returns bytes still to download plus those of the prepared files; 0: unknown.

    Prepared images are about as large as their archives.
    """
    if builder.name in ARCHIVES:
        return sum(ARCHIVES[builder.name].values())
    if builder.builder_config:  # downloads are listed for all configurations
        return 0
    archives = sum(info.size for info in (builder.url_infos or {}).values())
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return archives
    received = pathlib.Path(builder.data_dir_root, "downloads", builder.name)
    return archives + max(archives - size(received), 0)


def check_space(directory: pathlib.Path, needed: int, removable: int = 0) -> None:
    """Checks that a directory, which need not exist, has space for `needed` bytes.

    Raises:
        RunError: If there is less, even after removing `removable` bytes.
    """
    parent = next(path for path in (directory, *directory.parents) if path.is_dir())
    free = shutil.disk_usage(parent).free + removable
    if free < needed:
        raise RunError(
            f"{parent} has too little free space. Expected {needed / GIB:.1f} GiB. "
            f"Received: {free / GIB:.1f} GiB."
        )


def check_shards(builder: tfds.core.DatasetBuilder) -> None:
    """Checks that the files of a prepared data set are there and complete.

    Raises:
        RunError: If a file is missing or truncated.
    """
    for split in builder.info.splits.values():
        paths = [pathlib.Path(path) for path in split.filepaths]
        for path in paths:
            if not path.is_file():
                raise _damaged(path, "a file", "none")
        if sum(map(size, paths)) >= split.num_bytes + RECORD * split.num_examples:
            continue
        for path, expected in zip(paths, split.shard_lengths, strict=True):
            records = tf.data.TFRecordDataset(str(path)).ignore_errors()
            received = records.reduce(np.int64(0), lambda count, _: count + 1).numpy()
            if received != expected:
                raise _damaged(path, f"{expected} images", f"{received}")


def remains(builder: tfds.core.DatasetBuilder) -> list[pathlib.Path]:
    """Returns directories of preparations that were killed, or are still running."""
    path = pathlib.Path(builder.data_dir)
    return list(path.parent.glob(f"incomplete.*_{path.name}"))


def remove_remains(builder: tfds.core.DatasetBuilder) -> None:
    """Removes leftovers of killed preparations; the caller must hold the lock."""
    for directory in remains(builder):
        shutil.rmtree(directory)


def size(path: pathlib.Path) -> int:
    """Returns the bytes of a file, or of all files below a directory; 0 if missing."""
    if path.is_dir():
        return sum(map(size, path.iterdir()))
    return path.stat().st_size if path.is_file() else 0


def _damaged(path, expected, received):
    return RunError(
        f"{path} is missing or truncated. Expected: {expected}. Received: {received}. "
        f"Remove {path.parent} and prepare it again."
    )
