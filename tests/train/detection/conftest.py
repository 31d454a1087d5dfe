"""Shared by the tests of detection: scenes of digits."""

import json

import pytest
import yaml

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


@pytest.fixture(scope="session")
def records(coco, tmp_path_factory):
    """Records of the scenes of digits."""
    from train.detection import annotations
    from train.detection import records as writer

    out = tmp_path_factory.mktemp("records")
    for split in ("train2017", "val2017"):
        name = f"instances_{split}.json"
        read = annotations.read(coco / "annotations" / name, coco / split)
        writer.write(read, coco / split, out, split)
        (out / name).write_text(json.dumps(read.as_coco()))
    return out


@pytest.fixture(scope="session")
def config(records, tmp_path_factory):
    """A file of parameters for six steps on the scenes of digits."""
    data = {"global_batch_size": 4, "shuffle_buffer_size": 4}
    trainer = dict.fromkeys(("steps_per_loop", "summary_interval"), 2)
    parameters = {
        "task": {
            "annotation_file": str(records / "instances_val2017.json"),
            "model": {"num_classes": 4, "input_size": [64, 64, 3]},
            "train_data": {"input_path": f"{records}/train2017-*", **data},
            "validation_data": {"input_path": f"{records}/val2017-*", **data},
        },
        "trainer": {**trainer, "train_steps": 6, "validation_interval": 6},
    }
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(parameters))
    return path
