"""A real export, its own answers, and images to send to it."""

import pytest
import tensorflow as tf

from train.engine import run_directory
from train.export.runtimes import newest_export
from train.input import dataset


@pytest.fixture(scope="module")
def export(short_run):
    return newest_export(short_run[0])


@pytest.fixture(scope="module")
def signature(export):
    """The signature `image_bytes` of the export, from encoded images to arrays."""
    model = tf.saved_model.load(str(export))

    def run(image_bytes):
        answer = model.signatures["image_bytes"](tf.constant(image_bytes))
        return {name: value.numpy() for name, value in answer.items()}

    return run


@pytest.fixture(scope="module")
def images(short_run, data_dir, tmp_path_factory):
    """Files with three real scans; the last one is a JPEG."""
    facts = run_directory.read_facts(short_run[0])
    split = dataset.load(facts.recipe.data, str(data_dir)).splits["test"]
    contents = [split.images[i].numpy() for i in range(3)]
    contents[2] = tf.io.encode_jpeg(tf.io.decode_png(contents[2])).numpy()
    directory = tmp_path_factory.mktemp("images")
    paths = [directory / name for name in ("0.png", "1.png", "2.jpg")]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture
def contents(images):
    return [image.read_bytes() for image in images]
