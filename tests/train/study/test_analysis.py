"""What the network of a run does."""

import json

import numpy as np
import pytest

from an_keras import collect_attention
from train.engine import models
from train.input import pipeline
from train.study import analysis, groups


def test_gate_has_entropy_and_effective_components():
    attention = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]], np.float32)
    gate = analysis.gate("layer", attention, np.array([0, 2, 2]), 3)
    np.testing.assert_allclose(gate.by_class[0], [1, 0, 0, 0])
    assert np.isnan(gate.by_class[1]).all()
    np.testing.assert_allclose(gate.by_class[2], [0.375, 0.375, 0.125, 0.125])
    assert gate.entropy == pytest.approx((0 + np.log(2) + np.log(4)) / 3)
    assert gate.effective == pytest.approx((1 + 2 + 4) / 3)
    mean = np.array([1.75, 0.75, 0.25, 0.25]) / 3
    assert gate.effective_of_mean == pytest.approx(np.exp(-(mean * np.log(mean)).sum()))


def test_analysis_agrees_with_results_and_attention(short_run, data_dir):
    workdir, _ = short_run
    (run,) = groups.read([workdir])
    data = run.spec.load_data(str(data_dir))
    done = analysis.analyse(run, data, [("contrast", 1), ("contrast", 5)], most=50)
    results = json.loads((workdir / "results.json").read_text())
    assert done.confusion.sum() == 355
    assert np.trace(done.confusion) / 355 == pytest.approx(results["top1"])
    assert 0 <= done.calibration_error <= 1
    assert done.corrupted["contrast", 5] < done.corrupted["contrast", 1]
    model, *_ = models.load_best(workdir)
    images, *_ = next(iter(pipeline.evaluation_batches(data, "validation", 143)))
    for gate, attention in zip(
        done.gates, collect_attention(model, images).values(), strict=True
    ):
        shares = np.asarray(attention) / np.sum(attention, axis=1, keepdims=True)
        expected = np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-30)), axis=1))
        assert gate.effective == pytest.approx(expected.mean(), rel=1e-4)
