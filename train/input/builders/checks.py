"""What a data set needs before it is prepared, and after."""

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

# Bytes of what must be in manual_dir. 0: must not be there.
ARCHIVES = {
    "imagenet2012": {
        "ILSVRC2012_img_train.tar": 147_897_477_120,
        "ILSVRC2012_img_val.tar": 6_744_924_160,
        "ILSVRC2012_img_test.tar": 0,  # without labels: training refuses such a split
    }
}
GIB = 2**30
RECORD = 16  # bytes around a record in a TFRecord file
UNUSABLE = ("Cc", "Cs", "Zl", "Zp")  # control, no UTF-8, ends of lines
USABLE_NAMES = (
    "names of one line without control characters, in UTF-8, that differ in more than "
    "white space around them and the form of their accents"
)


def unusable_names(names: Sequence[str]) -> list[str]:
    """Class names that are not `USABLE_NAMES`: labels.txt could not tell them apart."""

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
    """That names can be used as those of classes.

    Raises:
        RunError: some cannot.
    """
    if odd := unusable_names(names):
        raise RunError(
            f"{source} has class names that cannot be used. Expected {USABLE_NAMES}. "
            f"Received: {', '.join(map(ascii, odd[:5]))}."
        )


def check_archives(builder: tfds.core.DatasetBuilder, manual_dir: pathlib.Path) -> None:
    """That the archives which the user has to download are there, whole.

    Raises:
        RunError: an archive is missing, of another size, or must not be there.
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
            f"{builder.name} lacks archives in --manual_dir={manual_dir}. Expected: "
            f"{expected or 'files'}. Received: {received or 'none'}. {instructions}"
        )


def needed_space(builder: tfds.core.DatasetBuilder) -> int:
    """Bytes of what is still to be downloaded and of the prepared files; 0: unknown.

    Prepared images are about as large as their archives.
    """
    if builder.name in ARCHIVES:
        return sum(ARCHIVES[builder.name].values())
    if builder.builder_config:  # the list of downloads is that of all configurations
        return 0
    archives = sum(info.size for info in (builder.url_infos or {}).values())
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return archives
    received = pathlib.Path(builder.data_dir_root, "downloads", builder.name)
    return archives + max(archives - size(received), 0)


def check_space(directory: pathlib.Path, needed: int, removable: int = 0) -> None:
    """That a directory, which need not exist, has space for so many bytes.

    Raises:
        RunError: there is less, even after removing what can be removed.
    """
    parent = next(path for path in (directory, *directory.parents) if path.is_dir())
    free = shutil.disk_usage(parent).free + removable
    if free < needed:
        raise RunError(
            f"{parent} has too little free space. Expected {needed / GIB:.1f} GiB. "
            f"Received: {free / GIB:.1f} GiB."
        )


def check_shards(builder: tfds.core.DatasetBuilder) -> None:
    """That the files of a prepared data set are there, whole.

    Raises:
        RunError: a file is missing or cut short.
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
    """Directories of preparations that were killed, or are going on."""
    path = pathlib.Path(builder.data_dir)
    return list(path.parent.glob(f"incomplete.*_{path.name}"))


def remove_remains(builder: tfds.core.DatasetBuilder) -> None:
    """Of preparations that were killed; who calls it has the lock on the directory."""
    for directory in remains(builder):
        shutil.rmtree(directory)


def size(path: pathlib.Path) -> int:
    """Bytes of a file, or of all files below a directory; 0 of what is not there."""
    if path.is_dir():
        return sum(map(size, path.iterdir()))
    return path.stat().st_size if path.is_file() else 0


def _damaged(path, expected, received):
    return RunError(
        f"{path} is missing or cut short. Expected: {expected}. Received: {received}. "
        f"Remove {path.parent} and prepare it again."
    )
