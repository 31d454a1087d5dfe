"""The loss of a batch."""

import numpy as np
import pytest

from train.engine import metrics


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_have_a_part_of_every_class(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = (
        rng.normal(size=(6, 4)).astype("float32"),
        np.array([0, 1, 2, 3, 1, 0]),
    )
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    received = metrics.cross_entropy(labels, logits, smoothing)
    np.testing.assert_allclose(received, -(targets * log).sum(axis=1), rtol=1e-5)
