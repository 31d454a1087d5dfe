"""The handwritten digits that travel inside scikit-learn."""

import numpy as np
import sklearn.datasets
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 real scans of handwritten digits, 8x8x1 uint8, from the UCI repository.

    scikit-learn holds them as counts of ink from 0 to 16, here scaled to 0 to 255.
    Every fifth scan of each class is a test image.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Optical recognition of handwritten digits, 8x8 pixels.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=map(str, range(10))),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        bunch = sklearn.datasets.load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        rank_in_class = np.zeros(len(images), int)
        for label in range(10):
            members = bunch.target == label
            rank_in_class[members] = np.arange(members.sum())
        is_test = rank_in_class % 5 == 4
        return {
            "train": self._generate_examples(images, bunch.target, ~is_test),
            "test": self._generate_examples(images, bunch.target, is_test),
        }

    def _generate_examples(self, images, labels, chosen):
        for index in np.flatnonzero(chosen):
            yield int(index), {"image": images[index], "label": int(labels[index])}
