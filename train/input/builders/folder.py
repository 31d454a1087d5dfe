"""Image files in folders: DIR/train/CLASS/*.jpg, and optionally DIR/test/..."""

import collections
import hashlib
import os
import random
import sys

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from train.cli import RunError
from train.input import image_files
from train.input.builders import checks
from train.input.order import VALIDATION_NAMES

SPLITS = ("train", "test", *VALIDATION_NAMES)


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
        sizes: Bytes of the images by split.
    """

    def __init__(self, directory):
        self.directory, self.sizes = directory, collections.Counter()
        self._finder, self._split_of = image_files.Finder(), {}

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
        if damaged := self._finder.damaged:
            raise image_files.unreadable(self.directory, damaged)
        return found

    def describe_left_out(self) -> str:
        return image_files.describe(self._finder.left_out)

    def _splits(self):
        unknown, splits = [], {}
        for entry in self._finder.entries(self.directory):
            if entry.name in SPLITS and entry.is_dir():
                splits[entry.name] = entry.path
            elif entry.name in SPLITS or not entry.is_file():
                unknown.append(entry.name)
            elif image_files.is_image(entry):
                self._finder.left_out["images beside train"] += 1
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
        for entry in self._finder.entries(split):
            if entry.is_dir():
                classes[entry.name] = entry.path
            else:
                image_files.require_file(entry)
                self._finder.left_out["outside of classes"] += 1
        return classes

    def _images_of_class(self, split, directory):
        images = []
        for path, status in self._finder.images(directory):
            key = status.st_dev, status.st_ino
            other, known = self._split_of.setdefault(key, (split, path))
            if other != split:
                raise RunError(
                    f"{known!r} and {path!r} are the same file. Expected each image in "
                    "only one split. Received: a link."
                )
            images.append(path)
            self.sizes[split] += status.st_size
        if not images and not self._finder.damaged:
            raise self._finder.no_images(directory)
        return images


def check_images(directory: str, paths: list[bytes]) -> np.ndarray:
    """Reads and decodes every image once, to report damaged ones before training.

    Args:
        directory: Directory of the data set, for messages.
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
        limit = tf.constant(image_files.PIXELS, tf.int64)
        with tf.control_dependencies([tf.debugging.assert_less(pixels, limit)]):
            image = tf.io.decode_image(encoded, 3, expand_animations=False)
        return path, encoded, tf.size(image)

    print(f"reading {len(paths):,} images of {directory}", file=sys.stderr, flush=True)
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
        raise image_files.unreadable(directory, map(os.fsdecode, bad))
    joined = b"".join(digests[path] for path in paths)
    return np.frombuffer(joined, np.uint8).reshape(len(paths), -1)
