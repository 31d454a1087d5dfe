"""Reference arrays of the published implementation; see README.md beside this file."""

import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent


def channels_last(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C)."""
    return np.transpose(images, (0, 2, 3, 1))


def to_keras(weight: np.ndarray) -> np.ndarray:
    """The kernel of a 1x1 convolution as that of a dense layer; others as they are."""
    return weight.reshape(weight.shape[:2]).T if weight.ndim == 4 else weight
