"""Shared by the tests of detection: scenes of digits."""

import pytest

from train.detection import scenes


@pytest.fixture(scope="session")
def coco(tmp_path_factory, data_dir):
    """A directory in COCO's layout: 12 training scenes, 5 for validation."""
    import numpy as np
    import skimage.data

    from train import config
    from train.input import builders

    out = tmp_path_factory.mktemp("scenes")
    builder = builders.create_builder(config.Data("digits"), data_dir)
    names, items = scenes.read_items(builder, ["0", "1", "2"])
    for seed, (split, count) in enumerate({"train2017": 12, "val2017": 5}.items()):
        random = np.random.default_rng(seed)
        photographs = [skimage.data.coffee()]
        scenes.write(out, split, names, items["train"], photographs, count, 64, random)
    return out
