"""The layer equals the published one: outputs, attention, gradients, statistics."""

import json
import re

import backends
import numpy as np
import pytest
from golden import GOLDEN, channels_last, to_keras, weights_rule
from keras import ops

from an_keras import AttentiveNormalization

K, C = 5, 16
REFERENCE = np.load(GOLDEN / "layers.npz")
MANIFEST = json.loads((GOLDEN / "layers.json").read_text())
CASES = {case["case"]: case for case in MANIFEST["cases"]}
# float32 is limited by its rounding, float64 by the float32 of the stored reference.
TOLERANCES = {"float32": 1e-5, "float64": 1e-7 if backends.KEEPS_DOUBLE else 1e-5}
PUBLISHED_MODES = {
    "0": {"gate_activation": "sigmoid", "gate_normalization": None},
    "1": {
        "gate_hidden_units": 2 * K,
        "gate_activation": "sigmoid",
        "gate_normalization": None,
    },
    "2": {},
    "3": {"gate_hidden_units": 2 * K},
    "4": {"gate_normalization": None},
    "5": {"gate_activation": "sigmoid"},
    "6": {"gate_activation": "softmax"},
}
GROUP = {"normalization": "group", "groups": 4}
OTHER_CASES = {
    "det_gn": {**GROUP, "gate_normalization": None},
    "rel_bn_rsd": {},
    "rel_bn_avg": {"descriptor": "mean"},
    "rel_bn_avgmax": {"descriptor": "mean_plus_max"},
    "rel_gn_rsd": {**GROUP, "gate_normalization": "group"},
    "rel_gn_rsd_attngroups0": {**GROUP, "gate_normalization": "batch"},
}


def arguments_of(case):
    if match := re.fullmatch(r"(bn|gn)_mode(\d)_(eval|train)", case):
        backbone = {} if match[1] == "bn" else GROUP
        return {**backbone, **PUBLISHED_MODES[match[2]]}
    return OTHER_CASES[re.sub("_(eval|train)$", "", case)]


def weight_of(layer, key):
    """Returns the variable for the state-dict entry `key` of the published layer."""
    statistics = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    head, _, leaf = key.rpartition(".")
    if not head:
        names = {"weight_": "gamma", "bias_": "beta", **statistics}
        return getattr(layer, names[leaf])
    index = int(head.rsplit(".", 1)[-1])
    prefix = "hidden_" if layer.gate_hidden_units and index < 2 else ""
    projections = (0, 2) if layer.gate.normalization is None else (0, 3)
    if index in projections:
        names = {"weight": "kernel", "bias": "bias"}
    else:
        names = {"weight": "gamma", "bias": "beta", **statistics}
    return getattr(layer.gate, prefix + names[leaf])


def entries(case):
    return [
        (key, tuple(shape))
        for key, shape, *_ in CASES[case]["state"]
        if not key.endswith("num_batches_tracked")
    ]


def build(case, dtype="float32"):
    layer = AttentiveNormalization(num_components=K, dtype=dtype, **arguments_of(case))
    layer.build((None, 6, 5, C))
    for key, shape in entries(case):
        values = weights_rule.tensor(f"layer.{key}", shape)
        weight_of(layer, key).assign(to_keras(values))
    return layer


def inputs(case, dtype="float32"):
    shape = tuple(CASES[case]["shape"])
    x = weights_rule.feature("layer_x", shape, scale=2.0, offset=0.3)
    dy = weights_rule.sym("layer_dy", shape).astype("float32")
    return tuple(channels_last(array).astype(dtype) for array in (x, dy))


def assert_equal(actual, case, what, dtype):
    expected = REFERENCE[f"{case}/{what}"].astype("float64")
    actual = ops.convert_to_numpy(actual).astype("float64")
    tolerance = TOLERANCES[dtype]
    scale = max(np.abs(expected).max(), 1e-3)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * scale, what


def run(case, layer, dtype):
    return backends.run(layer, *inputs(case, dtype), CASES[case]["train"])


@pytest.mark.parametrize("path", backends.PATHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_layer_equals_the_published_one(case, dtype, path):
    with backends.path(path):
        check_layer(case, dtype)


def check_layer(case, dtype):
    layer = build(case, dtype)
    x, _ = inputs(case, dtype)
    training = CASES[case]["train"]
    attention = layer.attention(x, training=training)
    y, dx, gradients = run(case, layer, dtype)

    assert_equal(attention, case, "attn", dtype)
    assert_equal(np.transpose(y, (0, 3, 1, 2)), case, "y", dtype)
    assert_equal(np.transpose(dx, (0, 3, 1, 2)), case, "dx", dtype)
    for key, shape in entries(case):
        weight = weight_of(layer, key)
        if weight.trainable:
            gradient = gradients[weight.path]
            if len(shape) == 4:
                gradient = gradient.T.reshape(shape)
            assert_equal(gradient, case, f"d_{key}", dtype)
        elif training:
            assert_equal(unbiased(case, key, weight), case, f"after_{key}", dtype)


def unbiased(case, key, weight):
    """Returns the PyTorch buffer after the step in which Keras arrives at `weight`.

    Both move by 0.1 of the batch statistic; PyTorch moves by n/(n-1) of the variance.
    """
    after = ops.convert_to_numpy(weight).astype("float64")
    if not key.endswith("running_var"):
        return after
    n, _, height, width = CASES[case]["shape"]
    count = n if "attention" in key or "attn" in key else n * height * width
    before = weights_rule.tensor(f"layer.{key}", after.shape).astype("float64")
    return 0.9 * before + (after - 0.9 * before) * count / (count - 1)


@pytest.mark.parametrize("weight", ["gamma", "beta", "gate/kernel", "moving_variance"])
def test_one_percent_error_in_one_number_is_detected(weight):
    layer = build("bn_mode2_eval")
    variable = next(v for v in layer.variables if v.path.endswith(weight))
    values = ops.convert_to_numpy(variable).copy()
    values.flat[3] *= 1.01
    variable.assign(values)
    with pytest.raises(AssertionError):
        y, *_ = run("bn_mode2_eval", layer, "float32")
        assert_equal(np.transpose(y, (0, 3, 1, 2)), "bn_mode2_eval", "y", "float32")
