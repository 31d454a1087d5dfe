"""Images in idx files, the format of MNIST and its successors."""

import gzip
import hashlib
import pathlib
import struct
import zlib

import numpy as np
import tensorflow_datasets as tfds

from train.command import RunError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
UNSIGNED_BYTE = 8  # type code in the third byte of the header


def read_idx(path: pathlib.Path, rank: int) -> np.ndarray:
    """The array of uint8 in an idx file, gzipped or not.

    Raises:
        RunError: the file is not an idx file of `rank` dimensions, or is cut short.
    """
    try:
        opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
        with opened as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    expected = bytes([0, 0, UNSIGNED_BYTE, rank])
    if content[:4] != expected:
        raise RunError(
            f"{path} is no idx file of unsigned bytes with {rank} dimensions. "
            f"Expected first bytes: {expected.hex()}. Received: {content[:4].hex()}."
        )
    header = 4 + 4 * rank
    if len(content) < header:
        raise RunError(
            f"{path} is cut short. Expected: {header} bytes of header. "
            f"Received: {len(content)} bytes."
        )
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) != header + np.prod(shape, dtype=np.int64):
        raise RunError(
            f"{path} does not hold what its header says. Expected: {shape} bytes. "
            f"Received: {len(content) - header} bytes."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


class Idx(tfds.core.GeneratorBasedBuilder):
    """A directory with the four idx files of MNIST, Fashion-MNIST, KMNIST and others.

    Args:
        directory: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
            `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, with or without `.gz`.
        class_names: names of the labels; empty for their numbers.
        data_dir: where tensorflow-datasets keeps the prepared files.

    The prepared files lie in a directory named by a hash of the content and the names:
    other content is another data set.

    Raises:
        RunError: a file is missing or damaged, or a label has no name.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, directory, class_names=(), data_dir=None):
        self._arrays, digest = {}, hashlib.sha256(repr(class_names).encode())
        for split, (images, labels) in FILES.items():
            paths = [_find(pathlib.Path(directory), stem) for stem in (images, labels)]
            self._arrays[split] = (read_idx(paths[0], 3), read_idx(paths[1], 1))
            for array in self._arrays[split]:
                digest.update(repr(array.shape).encode())
                digest.update(array.tobytes())
            counts = [len(array) for array in self._arrays[split]]
            if counts[0] != counts[1] or not counts[0]:
                raise RunError(
                    f"{paths[0]} and {paths[1]} do not belong together. Expected one "
                    f"label for each image. Received: {counts[0]} and {counts[1]}."
                )
        sizes = [images.shape[1:] for images, _ in self._arrays.values()]
        if len(set(sizes)) > 1 or 0 in sizes[0]:
            raise RunError(
                f"{directory} must hold images of one size. Received: {sizes[0]} for "
                f"training, {sizes[1]} for test."
            )
        largest = max(int(labels.max()) for _, labels in self._arrays.values())
        self._class_names = class_names or tuple(map(str, range(largest + 1)))
        if len(set(self._class_names)) < len(self._class_names):
            raise RunError(
                "Recipe field data.class_names must have no name twice. "
                f"Received: {self._class_names}."
            )
        if largest >= len(self._class_names):
            raise RunError(
                f"{directory} has labels without a name. Expected: up to "
                f"{len(self._class_names) - 1}. Received: {largest}."
            )
        location = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
        super().__init__(data_dir=location / digest.hexdigest()[:16])

    def _info(self):
        height, width = self._arrays["train"][0].shape[1:]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images from idx files.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(height, width, 1)),
                    "label": tfds.features.ClassLabel(names=self._class_names),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in FILES}

    def _generate_examples(self, split):
        for index, (image, label) in enumerate(zip(*self._arrays[split], strict=True)):
            yield index, {"image": image[..., np.newaxis], "label": int(label)}


def _find(directory, stem):
    for name in (stem, f"{stem}.gz"):
        if (directory / name).is_file():
            return directory / name
    raise RunError(
        f"Expected {stem} or {stem}.gz in {directory}. Received: no such file."
    )
