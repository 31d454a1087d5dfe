"""Where the images of a split are stored, and in which order training reads them.

An `IndexedSplit` accesses every image by its index: encoded images in memory, or their
paths. A `ShardedSplit` has record files that are too large for that. In both, the
images that the replicas of a run take in step s depend only on (seed, s). So a run
resumes exactly where it stopped, whether its replicas are in one process or in many.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
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
    """The part of every step that one replica takes.

    Attributes:
        replica: Index of the replica, from 0.
        replicas: Number of replicas.
        batch: Number of images of one replica in a step.
    """

    replica: int
    replicas: int
    batch: int

    def position(self, index):
        """Converts an index of this replica to its position over all replicas."""
        step, offset = index // self.batch, index % self.batch
        return (step * self.replicas + self.replica) * self.batch + offset


class Split(Protocol):
    """The images of a split, in memory or not."""

    def __len__(self) -> int: ...

    def fingerprint(self) -> bytes:
        """The sha256 that identifies the split, wherever its files are."""

    def carve(self, fraction: float) -> tuple["Split", "Split"]:
        """Returns the rest of the split, and about this fraction of it, set aside."""

    def is_labelled(self) -> bool:
        """Whether the split has labels; withheld labels are -1."""

    def lacking(self, classes: int) -> set[int]:
        """Returns the labels below `classes` that are known to have no image."""

    def training(self, share: Share, seed: int, start: int, stop: int):
        """Returns a replica's positions, encoded images, labels of steps start:stop."""

    def evaluation_steps(self, batch: int, replicas: int) -> int:
        """Number of steps, of `batch` images per replica, that cover every image."""

    def evaluation(self, share: Share):
        """Returns a replica's encoded images, labels, weights; padding has weight 0."""

    def names(self) -> Sequence[int | str]:
        """Returns each image's path, or else its index, in one replica's order."""


@dataclasses.dataclass(frozen=True)
class IndexedSplit:
    """Images with their labels, accessed by index.

    Training permutes the indices in each epoch, over all replicas.

    Attributes:
        images: String tensor of encoded images or of paths of image files.
        labels: Labels (N,), int64.
        digests: sha256 of the files, (N, 32) uint8, if `images` are their paths.
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
        """Returns the rest of the split, and the fraction of each class set aside.

        Stratified and fixed: the images set aside are evenly spaced in the stored order
        of each class, at least one and never all. A class with one image stays whole.
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
        """The digest of labels and encoded images, wherever they are stored."""
        digest = hashlib.sha256(self.labels.tobytes())
        if self.digests is not None:
            digest.update(self.digests.tobytes())
            return digest.digest()
        for entry in self.images.numpy():
            digest.update(hashlib.sha256(entry).digest())
        return digest.digest()

    def training(self, share: Share, seed: int, start: int, stop: int):
        """Returns a replica's positions, encoded images, labels of steps start:stop."""

        def example(index):
            position = share.position(index)
            epoch, offset = position // len(self), position % len(self)
            shuffled = tf.random.experimental.index_shuffle(
                offset, tf.stack([seed, epoch]), len(self) - 1
            )
            return position, *self._entry(shuffled)

        indices = tf.data.Dataset.range(start * share.batch, stop * share.batch)
        return indices.map(example, tf.data.AUTOTUNE)

    def evaluation_steps(self, batch: int, replicas: int) -> int:
        """Number of steps, of `batch` images per replica, that cover every image."""
        return -(-len(self) // (batch * replicas))

    def evaluation(self, share: Share):
        """Returns a replica's encoded images, labels, weights; padding has weight 0."""

        def example(index):
            position = share.position(index)
            entry = self._entry(tf.minimum(position, len(self) - 1))
            return *entry, tf.cast(position < len(self), tf.float32)

        steps = self.evaluation_steps(share.batch, share.replicas)
        return tf.data.Dataset.range(steps * share.batch).map(example, tf.data.AUTOTUNE)

    def names(self) -> Sequence[int | str]:
        """Returns the path of each image or, if it has none, its index."""
        if self.digests is None:
            return range(len(self))
        return [os.fsdecode(path) for path in self.images.numpy()]

    def _entry(self, index):
        image = tf.gather(self.images, index)
        if self.digests is not None:
            image = tf.io.read_file(image)
        return image, tf.gather(self.labels, index)


@dataclasses.dataclass(frozen=True)
class ShardedSplit:
    """Images in the record files of tensorflow-datasets, which has shuffled them.

    Every replica reads its own files. In training it takes them in a new order each
    epoch, interleaves 16 at a time, and shuffles the images within windows of 2048. So
    a run that resumes rereads at most 16 files, and holds two windows in memory.

    Attributes:
        name: Name of the data set, its version and the split.
        features: Features of the data set, to parse its records.
        paths: Paths of the files.
        lengths: Number of images in each file.
    """

    name: str
    features: tfds.features.FeaturesDict
    paths: tuple[str, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.lengths)

    def carve(self, fraction: float) -> tuple["ShardedSplit", "ShardedSplit"]:
        """Returns the first files, and the last ones, set aside: at least one each.

        Raises:
            RunError: If there is only one file.
        """
        if len(self.paths) < 2:
            raise RunError(
                f"{self.name} cannot be divided. Expected at least 2 files. "
                "Received: 1. Increase --set=data.memory_limit to hold it in memory."
            )
        first = min(round((1 - fraction) * len(self.paths)), len(self.paths) - 1)
        parts = slice(max(first, 1)), slice(max(first, 1), None)
        return tuple(
            dataclasses.replace(self, paths=self.paths[p], lengths=self.lengths[p])
            for p in parts
        )

    def is_labelled(self) -> bool:
        """Whether the first image has a label."""
        _, label, _ = next(iter(self.evaluation(Share(0, 1, 1))))
        return int(label) >= 0

    def lacking(self, classes: int) -> set[int]:
        """Returns an empty set: the files are not read to find out."""
        return set()

    def fingerprint(self) -> bytes:
        """The digest of the name, and of the names and lengths of the files."""
        files = [path.rpartition("/")[2] for path in self.paths]
        return hashlib.sha256(repr((self.name, files, self.lengths)).encode()).digest()

    def training(self, share: Share, seed: int, start: int, stop: int):
        """Returns a replica's positions, encoded images, labels of steps start:stop.

        Raises:
            RunError: If there are more replicas than files.
        """
        if len(self.paths) < share.replicas:
            raise RunError(
                f"{self.name} has too few files for these replicas. Expected at least "
                f"{share.replicas}, one for each. Received: {len(self.paths)}."
            )
        files = slice(share.replica, None, share.replicas)
        order = _Order(self.paths[files], self.lengths[files], seed)
        first, last = start * share.batch, stop * share.batch
        records = order.records(first).take(last - first).enumerate(first)
        return records.map(
            lambda index, record: (share.position(index), *self._parse(record)),
            tf.data.AUTOTUNE,
        )

    def evaluation_steps(self, batch: int, replicas: int) -> int:
        """Number of steps, of `batch` images per replica, that cover every image."""
        longest = max(self._files(replica, replicas)[1] for replica in range(replicas))
        return -(-longest // batch)

    def evaluation(self, share: Share):
        """Returns a replica's encoded images, labels, weights; padding has weight 0."""
        paths, length = self._files(share.replica, share.replicas)
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

    def names(self) -> Sequence[int | str]:
        """Returns the index of each image in the order of `evaluation`."""
        return range(len(self))

    def _files(self, replica, replicas):
        """Returns the files of a replica and how many images it takes from them."""
        if len(self.paths) >= replicas:
            files = slice(replica, None, replicas)
            return self.paths[files], sum(self.lengths[files])
        return self.paths, len(range(replica, len(self), replicas))

    def _parse(self, record):
        skip = {"image": tfds.decode.SkipDecoding()}
        example = self.features.deserialize_example(record, decoders=skip)
        return example["image"], example["label"]


class _Order:
    """The records of some files in training order, epoch after epoch.

    Args:
        paths, lengths: Paths of the files, and number of images in each.
        seed: Seed of the order.
    """

    def __init__(self, paths, lengths, seed):
        self._paths, self._lengths, self._seed = list(paths), np.array(lengths), seed

    def records(self, start: int) -> tf.data.Dataset:
        """Returns an endless data set of the records, starting at record `start`."""
        epoch, offset = divmod(start, int(self._lengths.sum()))
        window = offset // WINDOW
        rest = tf.data.Dataset.range(epoch + 1, tf.int64.max).flat_map(self._windows)
        windows = self._windows(epoch, window).concatenate(rest)
        return windows.prefetch(1).unbatch().skip(offset - window * WINDOW)

    def _windows(self, epoch, first=0):
        """Returns an epoch's windows from `first`; earlier files are not opened."""
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
        """Returns the file group of an epoch's image, and its index in the group."""
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
