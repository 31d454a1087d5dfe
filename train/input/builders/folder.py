"""Image files in folders: DIR/train/CLASS/*.jpg, and optionally DIR/test/..."""

import collections
import hashlib
import os
import random
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from train.cli import RunError
from train.input.builders import checks
from train.input.order import VALIDATION_NAMES

SPLITS = ("train", "test", *VALIDATION_NAMES)
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
USED = ("JPEG", "PNG")  # what the signature `image_bytes` of an export accepts
KINDS = re.compile(  # by the first bytes of a file
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<BMP>BM....\0{4})|(?P<WebP>RIFF....WEBP)|(?P<TIFF>II\*\0|MM\0\*)"
    rb"|(?P<HEIF>....ftyp(heic|heix|mif1|msf1|avif|avis))",
    re.DOTALL,
)
OF_SYSTEMS = (  # hidden, though their names do not start with a dot
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "lost+found",
    "system volume information",
    "thumbs.db",
)
PIXELS = 2**29 // 3  # half a GiB in colour; Pillow's limit


class Folder(tfds.core.DatasetBuilder, skip_registration=True):
    """A folder of images.

    Images are recognized by their first bytes, not by their names. Folders inside a
    class belong to it. Hidden files, and files other than JPEG or PNG, are left out.

    Args:
        directory: Directory with `train` and optionally `test` and `validation`, `val`
            or `valid`. Each has the same directories, one for each class.

    Attributes:
        files: Paths (bytes) and labels by split, in a fixed order.
        left_out: Numbers of unused files by kind, as text. Empty if there are none.

    Raises:
        RunError: If something in the folder is not as expected; the message names it.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, directory: str):
        reader = _Reader(directory)
        try:
            images = reader.images()
        except OSError as error:
            where = error.filename or directory
            raise RunError(
                f"{where!r} cannot be read. Received: {error.strerror}."
            ) from error
        self.class_names = tuple(sorted(images["train"]))
        self.left_out = reader.describe_left_out()
        self.files = {}
        for split, of_class in images.items():
            examples = [
                (os.fsencode(path), label)
                for label, name in enumerate(self.class_names)
                for path in sorted(of_class[name])
            ]
            is_validation = split in VALIDATION_NAMES  # whatever it is called
            random.Random("validation" if is_validation else split).shuffle(examples)
            paths, labels = zip(*examples, strict=True)
            self.files[split] = list(paths), np.array(labels)
        super().__init__(data_dir=directory)
        self._data_dir = directory
        infos = [
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(paths)], num_bytes=reader.sizes[split]
            )
            for split, (paths, _) in self.files.items()
        ]
        self.info.set_splits(tfds.core.SplitDict(infos))

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Image files in folders.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.ClassLabel(names=self.class_names),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _download_and_prepare(self, dl_manager, download_config=None):
        raise NotImplementedError("A folder is read as it is.")

    def _as_dataset(self, split, decoders=None, read_config=None, shuffle_files=False):
        raise NotImplementedError("A folder is read by the paths of its files.")


class _Reader:
    """Reads every directory once, and the first bytes of every file.

    Attributes:
        left_out: Number of unused files by kind.
        sizes: Bytes of the images by split.
    """

    def __init__(self, directory):
        self.directory = directory
        self.left_out, self.sizes = collections.Counter(), collections.Counter()
        self._seen, self._split_of, self._damaged = {}, {}, []

    def images(self) -> dict[str, dict[str, list[str]]]:
        """Returns paths by split and class."""
        splits = self._splits()
        classes = {split: self._classes(path) for split, path in splits.items()}
        if not classes["train"]:
            raise RunError(
                f"{splits['train']!r} holds no classes. Expected a directory for each. "
                f"Received: {self.describe_left_out() or 'nothing'}."
            )
        names = sorted(set().union(*classes.values()))
        checks.check_class_names(names, self.directory)
        for split, paths in classes.items():
            only = {
                "train": sorted(classes["train"].keys() - paths.keys()),
                split: sorted(paths.keys() - classes["train"].keys()),
            }
            if any(only.values()):
                received = (
                    f"only in {place}: {', '.join(lacking[:5])}"
                    for place, lacking in only.items()
                    if lacking
                )
                raise RunError(
                    f"{self.directory} has different classes in {split} and in train. "
                    f"Expected the same. Received: {'; '.join(received)}."
                )
        found = {
            split: {name: self._images_of_class(split, paths[name]) for name in names}
            for split, paths in classes.items()
        }
        if self._damaged:
            raise _unreadable(self.directory, self._damaged)
        return found

    def describe_left_out(self) -> str:
        common = self.left_out.most_common(6)
        rest = self.left_out.total() - sum(count for _, count in common)
        if rest:
            common.append(("of other kinds", rest))
        return ", ".join(f"{count} {kind}" for kind, count in common)

    def _splits(self):
        unknown, splits = [], {}
        for entry in self._entries(self.directory):
            if entry.name in SPLITS and entry.is_dir():
                splits[entry.name] = entry.path
            elif entry.name in SPLITS or not entry.is_file():
                unknown.append(entry.name)
            elif KINDS.match(_begin(entry)[0]):
                self.left_out["images beside train"] += 1
        validation = [name for name in VALIDATION_NAMES if name in splits]
        if unknown or len(validation) > 1 or "train" not in splits:
            received = ", ".join(map(repr, unknown[:5] or validation or sorted(splits)))
            raise RunError(
                f"{self.directory} is not an image folder. Expected the directory "
                f"train, optionally test and one of {', '.join(VALIDATION_NAMES)}, and "
                f"no others. Received: {received or 'no directory'}."
            )
        return {split: splits[split] for split in SPLITS if split in splits}

    def _classes(self, split):
        classes = {}
        for entry in self._entries(split):
            if entry.is_dir():
                classes[entry.name] = entry.path
            else:
                _require_file(entry)
                self.left_out["outside of classes"] += 1
        return classes

    def _images_of_class(self, split, directory):
        images, waiting = [], [directory]
        while waiting:
            for entry in self._entries(waiting.pop()):
                if entry.is_dir() and _suffix(entry) not in SUFFIXES:
                    waiting.append(entry.path)
                elif size := self._image_size(split, entry):
                    images.append(entry.path)
                    self.sizes[split] += size
        if not images and not self._damaged:
            left_out = self.describe_left_out()
            raise RunError(
                f"{directory!r} holds no images. Expected JPEG or PNG files. "
                f"Received: none{left_out and f'; left out: {left_out}'}."
            )
        return images

    def _entries(self, directory) -> Iterator[os.DirEntry]:
        status = os.stat(directory)
        key = status.st_dev, status.st_ino
        if key in self._seen:
            raise RunError(
                f"{self._seen[key]!r} and {directory!r} are the same directory. "
                "Expected each image only once. Received: a link."
            )
        self._seen[key] = directory
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name.lower() in OF_SYSTEMS:
                    self.left_out["hidden"] += 1
                else:
                    yield entry

    def _image_size(self, split, entry):
        """Returns the bytes of an image, or 0 if the file is not an image."""
        _require_file(entry)
        begin, status = _begin(entry)
        known = KINDS.match(begin)
        if known and known.lastgroup in USED:
            key = status.st_dev, status.st_ino
            other, path = self._split_of.setdefault(key, (split, entry.path))
            if other != split:
                raise RunError(
                    f"{path!r} and {entry.path!r} are the same file. Expected "
                    "each image in only one split. Received: a link."
                )
            return status.st_size
        suffix = _suffix(entry)
        if not known and suffix in SUFFIXES:
            self._damaged.append(entry.path)
        elif known:
            self.left_out[known.lastgroup] += 1
        elif re.fullmatch(r"\.[a-z0-9_]{1,8}", suffix):
            self.left_out[suffix] += 1
        else:
            self.left_out["without a known extension"] += 1
        return 0


def check_images(directory: str, paths: list[bytes]) -> np.ndarray:
    """Reads and decodes every image once, to report damaged ones before training.

    Args:
        directory: Directory of the data set, for the message.
        paths: Paths of the files.

    Returns:
        The sha256 of each file, (N, 32) uint8.

    Raises:
        RunError: If an image cannot be decoded.
    """

    def decode(path):
        encoded = tf.io.read_file(path)
        size = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.io.extract_jpeg_shape(encoded)[:2],
            lambda: tf.io.decode_raw(  # of a PNG
                tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
            ),
        )
        pixels = tf.reduce_prod(tf.cast(size, tf.int64))
        limit = tf.constant(PIXELS, tf.int64)
        with tf.control_dependencies([tf.debugging.assert_less(pixels, limit)]):
            image = tf.io.decode_image(encoded, 3, expand_animations=False)
        return path, encoded, tf.size(image)

    decodable = (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(decode, tf.data.AUTOTUNE)
        .ignore_errors()
    )
    digests = {
        path: hashlib.sha256(encoded).digest()
        for path, encoded, _ in decodable.as_numpy_iterator()
    }
    if bad := sorted({*paths} - digests.keys()):
        raise _unreadable(directory, map(os.fsdecode, bad))
    joined = b"".join(digests[path] for path in paths)
    return np.frombuffer(joined, np.uint8).reshape(len(paths), -1)


def _begin(entry) -> tuple[bytes, os.stat_result]:
    """Reads the first bytes of a file, without blocking if it has become a pipe."""
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 16), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _suffix(entry):
    return os.path.splitext(entry.name)[1].lower()


def _require_file(entry):
    if not entry.is_file():
        if entry.is_dir():
            received = "a directory named like an image"
        elif os.path.exists(entry.path):
            received = "a pipe, a socket or a device"
        else:
            received = "a broken link"
        raise RunError(
            f"{entry.path!r} is not a file. Expected image files or links to them. "
            f"Received: {received}."
        )


def _unreadable(directory, paths):
    paths = sorted(paths)
    return RunError(
        f"{directory} has images that cannot be read. Expected JPEG or PNG files with "
        f"fewer than {PIXELS:,} pixels. Received: {len(paths)} damaged: "
        f"{', '.join(map(repr, paths[:5]))}."
    )
