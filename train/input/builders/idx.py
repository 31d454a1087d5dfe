"""Images in idx files, the format of MNIST and its successors."""

import contextlib
import gzip
import hashlib
import math
import pathlib
import struct
import zlib

import numpy as np
import tensorflow_datasets as tfds

from train.cli import RunError
from train.input.builders import checks
from train.paths import require_regular

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
UNSIGNED_BYTE = 8  # type code in the third byte of the header
DEFLATE = 1032  # bytes that one of a gzipped file becomes at most


def read_shape(path: pathlib.Path, rank: int) -> tuple[int, ...]:
    """The lengths in the header of an idx file, gzipped or not.

    Raises:
        RunError: the file is not an idx file of `rank` dimensions.
    """
    size = 4 + 4 * rank
    with _opened(path) as file:
        header = file.read(size)
    expected = bytes([0, 0, UNSIGNED_BYTE, rank])
    if header[:4] != expected:
        raise RunError(
            f"{path} is no idx file of unsigned bytes with {rank} dimensions. "
            f"Expected first bytes: {expected.hex()}. Received: {header[:4].hex()}."
        )
    if len(header) < size:
        raise RunError(
            f"{path} is cut short. Expected: {size} bytes of header. "
            f"Received: {len(header)} bytes."
        )
    shape = struct.unpack(f">{rank}I", header[4:])
    if 0 in shape:
        raise RunError(
            f"{path} holds nothing. Expected: lengths above 0. Received: {shape}."
        )
    return shape


def read_idx(path: pathlib.Path, rank: int) -> np.ndarray:
    """The array of uint8 in an idx file, gzipped or not.

    No more is unpacked than the header promises, and one byte.

    Raises:
        RunError: the file is not an idx file of `rank` dimensions, or holds less or
            more than its header says.
    """
    shape, stored = read_shape(path, rank), path.stat().st_size
    promised = math.prod(shape)
    if promised > stored * (DEFLATE if path.suffix == ".gz" else 1):
        received = f"a file of {stored}"
    else:
        with _opened(path) as file:
            file.read(4 + 4 * rank)
            content = file.read(promised + 1)
        if len(content) == promised:
            return np.frombuffer(content, np.uint8).reshape(shape)
        received = "more" if len(content) > promised else f"{len(content)}"
    raise RunError(
        f"{path} does not hold what its header says. Expected: {shape} bytes. "
        f"Received: {received}."
    )


@contextlib.contextmanager
def _opened(path):
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    except MemoryError as error:
        raise RunError(f"{path} is too large for the memory.") from error


class Idx(tfds.core.GeneratorBasedBuilder, skip_registration=True):
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
            counts = [read_shape(paths[0], 3)[0], read_shape(paths[1], 1)[0]]
            if counts[0] != counts[1]:
                raise RunError(
                    f"{paths[0]} and {paths[1]} do not belong together. Expected one "
                    f"label for each image. Received: {counts[0]} and {counts[1]}."
                )
            self._arrays[split] = (read_idx(paths[0], 3), read_idx(paths[1], 1))
            for array in self._arrays[split]:
                digest.update(repr(array.shape).encode())
                digest.update(array.tobytes())
        sizes = [images.shape[1:] for images, _ in self._arrays.values()]
        if len(set(sizes)) > 1:
            raise RunError(
                f"{directory} must hold images of one size. Received: {sizes[0]} for "
                f"training, {sizes[1]} for test."
            )
        largest = max(int(labels.max()) for _, labels in self._arrays.values())
        self._class_names = class_names or tuple(map(str, range(largest + 1)))
        checks.check_class_names(self._class_names, "Recipe field data.class_names")
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
        require_regular(directory / name)
        if (directory / name).is_file():
            return directory / name
    raise RunError(
        f"Expected {stem} or {stem}.gz in {directory}. Received: no such file."
    )
