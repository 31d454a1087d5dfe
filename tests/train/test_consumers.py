"""Programs that are not ours answer what the Keras model answers."""

import keras
import pytest
from consumers import NETWORKS, answers, build_program, make

from train import formats

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # the converters' own
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build_program(tmp_path_factory.mktemp("program"))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_runtime_answers_as_the_model(name, program, tmp_path):
    exported, version = make(name, "float32", tmp_path, others=formats.OTHERS)
    received = list(answers(exported, version, program))
    assert [consumer for consumer, *_ in received] == [
        "TensorFlow without Keras",
        "C program",
        *formats.OTHERS,
    ]
    for consumer, difference, _ in received:
        assert difference <= 1e-5, consumer
    keras.backend.clear_session()


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_served_as_it_was_trained(name, program, tmp_path):
    exported, version = make(name, "mixed_bfloat16", tmp_path)
    assert exported.precision == "mixed_bfloat16"
    for consumer, difference, allowed in answers(exported, version, program):
        assert difference <= allowed, consumer
    keras.backend.clear_session()
