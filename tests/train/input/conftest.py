import pytest

from train import config
from train.input import dataset


@pytest.fixture(scope="module")
def digits(data_dir):
    return dataset.load(
        config.Data("digits", shift=1, mean=(0.305,), std=(0.376,)), str(data_dir)
    )
