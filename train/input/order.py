"""Where the images of a split lie, and in which order training reads them.

An `IndexedSplit` reaches every image by its index: encoded images in memory, or their
paths. A `ShardedSplit` has record files that are too large for that. In both, what the
replicas of a run take in step s is a function of (seed, s) alone, so that a run goes on
exactly where it stopped, and the same for replicas of one process or of many.
"""

import dataclasses
import hashlib
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from train.cli import RunError

VALIDATION_NAMES = ("validation", "val", "valid")
FILES_AT_A_TIME = 16
WINDOW = 2048  # images


@dataclasses.dataclass(frozen=True)
class Share:
    """What one replica takes of every step.

    Attributes:
        replica: its number, from 0.
        replicas: how many there are.
        batch: images of one replica in a step.
    """

    replica: int
    replicas: int
    batch: int

    def position(self, own):
        """Place in the order of all replicas of the `own`-th image of this one."""
        step, offset = own // self.batch, own % self.batch
        return (step * self.replicas + self.replica) * self.batch + offset


class Split(Protocol):
    """The images of a split, in memory or not."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> bytes:
        """sha256 of what makes the split what it is, wherever its files lie."""

    def carve(self, fraction: float) -> tuple["Split", "Split"]:
        """What remains of the split, and about this fraction of it, put aside."""

    def is_labelled(self) -> bool:
        """Whether it has labels; those that are kept secret are -1."""

    def lacking(self, classes: int) -> set[int]:
        """Labels below `classes` that are known to have no image."""

    def training(self, share: Share, seed: int, start: int, stop: int):
        """Positions, encoded images and labels of a replica in steps start to stop."""

    def evaluation_steps(self, batch: int, replicas: int) -> int:
        """How many steps of `batch` images a replica see every image."""

    def evaluation(self, share: Share):
        """Encoded images, labels and weights of a replica; 0 for what fills a step."""


@dataclasses.dataclass(frozen=True)
class IndexedSplit:
    """Images with their labels, each reached by its index.

    Training takes a permutation of the indices for each epoch, over all replicas.

    Attributes:
        images: string tensor, encoded images or paths of image files.
        labels: (N,) int64.
        digests: (N, 32) uint8, sha256 of the files, where `images` are their paths.
    """

    images: tf.Tensor
    labels: np.ndarray
    digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "IndexedSplit":
        images = tf.gather(self.images, indices)
        digests = None if self.digests is None else self.digests[indices]
        return IndexedSplit(images, self.labels[indices], digests)

    def carve(self, fraction: float) -> tuple["IndexedSplit", "IndexedSplit"]:
        """What remains of the split, and the fraction of each class that is put aside.

        Stratified and fixed: of each class evenly spaced images in stored order, at
        least one and never all. A class of one image keeps it.
        """
        aside = np.zeros(len(self), bool)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            spaced = np.linspace(0, len(members), count, endpoint=False).astype(int)
            aside[members[spaced]] = True
        return self.take(np.flatnonzero(~aside)), self.take(np.flatnonzero(aside))

    def is_labelled(self) -> bool:
        return bool((self.labels >= 0).all())

    def lacking(self, classes: int) -> set[int]:
        return {*range(classes)} - {*self.labels.tolist()}

    def fingerprint(self) -> bytes:
        """Of labels and encoded images, wherever they lie."""
        digest = hashlib.sha256(self.labels.tobytes())
        if self.digests is not None:
            digest.update(self.digests.tobytes())
            return digest.digest()
        for entry in self.images.numpy():
            digest.update(hashlib.sha256(entry).digest())
        return digest.digest()

    def training(self, share: Share, seed: int, start: int, stop: int):
        """Positions, encoded images and labels of a replica in steps start to stop."""

        def example(own):
            position = share.position(own)
            epoch, offset = position // len(self), position % len(self)
            index = tf.random.experimental.index_shuffle(
                offset, tf.stack([seed, epoch]), len(self) - 1
            )
            return position, *self._entry(index)

        own = tf.data.Dataset.range(start * share.batch, stop * share.batch)
        return own.map(example, tf.data.AUTOTUNE)

    def evaluation_steps(self, batch: int, replicas: int) -> int:
        """How many steps of `batch` images a replica see every image."""
        return -(-len(self) // (batch * replicas))

    def evaluation(self, share: Share):
        """Encoded images, labels and weights of a replica; 0 for what fills a step."""

        def example(own):
            position = share.position(own)
            entry = self._entry(tf.minimum(position, len(self) - 1))
            return *entry, tf.cast(position < len(self), tf.float32)

        steps = self.evaluation_steps(share.batch, share.replicas)
        return tf.data.Dataset.range(steps * share.batch).map(example, tf.data.AUTOTUNE)

    def _entry(self, index):
        image = tf.gather(self.images, index)
        if self.digests is not None:
            image = tf.io.read_file(image)
        return image, tf.gather(self.labels, index)


@dataclasses.dataclass(frozen=True)
class ShardedSplit:
    """Images in the record files of tensorflow-datasets, which has shuffled them.

    Every replica reads files of its own. In training it takes them in a new order each
    epoch, 16 at a time in turns, and shuffles the images within windows of 2048: so a
    run that goes on reads at most 16 files again, and holds two windows in memory.

    Attributes:
        name: of the data set, its version and the split.
        features: of the data set, to parse its records.
        paths: of the files.
        lengths: images in each.
    """

    name: str
    features: tfds.features.FeaturesDict
    paths: tuple[str, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.lengths)

    def carve(self, fraction: float) -> tuple["ShardedSplit", "ShardedSplit"]:
        """What remains of the files, and the last ones, put aside: at least one.

        Raises:
            RunError: there is only one file.
        """
        if len(self.paths) < 2:
            raise RunError(
                f"{self.name} cannot be divided. Expected at least 2 files. "
                "Received: 1. A larger --set=data.memory_limit holds it in memory."
            )
        first = min(round((1 - fraction) * len(self.paths)), len(self.paths) - 1)
        parts = slice(max(first, 1)), slice(max(first, 1), None)
        return tuple(
            dataclasses.replace(self, paths=self.paths[p], lengths=self.lengths[p])
            for p in parts
        )

    def is_labelled(self) -> bool:
        """By its first image."""
        _, label, _ = next(iter(self.evaluation(Share(0, 1, 1))))
        return int(label) >= 0

    def lacking(self, classes: int) -> set[int]:
        """None is known: the files are not read through."""
        return set()

    def fingerprint(self) -> bytes:
        """Of the name, and of the files' names and lengths."""
        files = [path.rpartition("/")[2] for path in self.paths]
        return hashlib.sha256(repr((self.name, files, self.lengths)).encode()).digest()

    def training(self, share: Share, seed: int, start: int, stop: int):
        """Positions, encoded images and labels of a replica in steps start to stop.

        Raises:
            RunError: there are more replicas than files.
        """
        if len(self.paths) < share.replicas:
            raise RunError(
                f"{self.name} has too few files for these replicas. Expected at least "
                f"{share.replicas}, one for each. Received: {len(self.paths)}."
            )
        own = slice(share.replica, None, share.replicas)
        order = _Order(self.paths[own], self.lengths[own], seed)
        first, last = start * share.batch, stop * share.batch
        records = order.records(first).take(last - first).enumerate(first)
        return records.map(
            lambda own, record: (share.position(own), *self._parse(record)),
            tf.data.AUTOTUNE,
        )

    def evaluation_steps(self, batch: int, replicas: int) -> int:
        """How many steps of `batch` images a replica see every image."""
        longest = max(self._own(replica, replicas)[1] for replica in range(replicas))
        return -(-longest // batch)

    def evaluation(self, share: Share):
        """Encoded images, labels and weights of a replica; 0 for what fills a step."""
        paths, length = self._own(share.replica, share.replicas)
        records = _interleave(list(paths))
        if len(self.paths) < share.replicas:
            records = records.shard(share.replicas, share.replica)
        examples = records.map(self._parse, tf.data.AUTOTUNE)
        count = self.evaluation_steps(share.batch, share.replicas) * share.batch
        return (
            examples.map(lambda *example: (*example, 1.0))
            .concatenate(
                tf.data.TFRecordDataset(self.paths[0])
                .take(1)
                .repeat(count - length)
                .map(lambda record: (*self._parse(record), 0.0))
            )
            .take(count)
        )

    def _own(self, replica, replicas):
        """Files of a replica and how many images it takes from them."""
        if len(self.paths) >= replicas:
            own = slice(replica, None, replicas)
            return self.paths[own], sum(self.lengths[own])
        return self.paths, len(range(replica, len(self), replicas))

    def _parse(self, record):
        skip = {"image": tfds.decode.SkipDecoding()}
        example = self.features.deserialize_example(record, decoders=skip)
        return example["image"], example["label"]


class _Order:
    """The records of some files in the order of training, epoch after epoch.

    Args:
        paths, lengths: of the files.
        seed: of the order.
    """

    def __init__(self, paths, lengths, seed):
        self._paths, self._lengths, self._seed = list(paths), np.array(lengths), seed

    def records(self, start: int) -> tf.data.Dataset:
        """The records from the `start`-th on, without end."""
        epoch, offset = divmod(start, int(self._lengths.sum()))
        window = offset // WINDOW
        rest = tf.data.Dataset.range(epoch + 1, tf.int64.max).flat_map(self._windows)
        windows = self._windows(epoch, window).concatenate(rest)
        return windows.prefetch(1).unbatch().skip(offset - window * WINDOW)

    def _windows(self, epoch, first=0):
        """The windows of an epoch from the `first`-th on; files before it stay shut."""
        group, before = self._place(epoch, first * WINDOW) if first else (0, 0)

        def files(group):
            begin = group * FILES_AT_A_TIME
            end = tf.minimum(begin + FILES_AT_A_TIME, len(self._paths))
            chosen = self._permuted(epoch, tf.range(begin, end))
            return _interleave(tf.gather(self._paths, chosen))

        def shuffle(window, records):
            seeds = tf.random.experimental.stateless_fold_in(
                tf.stack([tf.cast(self._seed, tf.int64), epoch]), window
            )
            return tf.random.experimental.stateless_shuffle(records, seeds)

        groups = -(-len(self._paths) // FILES_AT_A_TIME)
        records = tf.data.Dataset.range(group, groups).flat_map(files).skip(before)
        return records.batch(WINDOW).enumerate(first).map(shuffle)

    def _place(self, epoch, offset):
        """The group of files of an image of an epoch, and how many are before it."""
        order = self._permuted(epoch, np.arange(len(self._paths)))
        lengths = self._lengths[order.numpy()]
        ends = np.add.reduceat(lengths, range(0, len(lengths), FILES_AT_A_TIME))
        ends = ends.cumsum()
        group = int(np.searchsorted(ends, offset, side="right"))
        return group, offset - int(ends[group - 1] if group else 0)

    def _permuted(self, epoch, places):
        seeds = tf.stack([tf.cast(self._seed, tf.int64), epoch])
        last = tf.constant(len(self._paths) - 1, places.dtype)
        return tf.random.experimental.index_shuffle(places, seeds, last)


def _interleave(paths):
    return tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset,
        cycle_length=FILES_AT_A_TIME,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
