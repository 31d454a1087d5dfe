"""Data sets of tensorflow-datasets with the names, features and files of the real ones,
but with images that tests make.
"""

from unittest import mock

import tensorflow_datasets as tfds


def prepare(
    name: str, data_dir, splits: dict[str, list[dict]], shards: int = 1
) -> None:
    """Prepares a data set; its own code makes features and files.

    Args:
        name: Name of the data set, such as `imagenet_v2/topimages`.
        data_dir: Directory of tensorflow-datasets.
        splits: The examples of each split.
        shards: Number of files of a split.
    """
    builder = tfds.builder(name, data_dir=data_dir)

    def generators(self, dl_manager):
        return {split: enumerate(examples) for split, examples in splits.items()}

    config = tfds.download.DownloadConfig(num_shards=shards)
    with mock.patch.object(type(builder), "_split_generators", generators):
        builder.download_and_prepare(download_config=config)
