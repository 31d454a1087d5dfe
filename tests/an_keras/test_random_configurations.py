"""Any configuration equals the NumPy model, and finite inputs give finite outputs."""

import math

import backends
import hypothesis
import keras
import numpy as np
import numpy_layer
import pytest
from hypothesis import strategies as st
from keras import ops

from an_keras import AttentiveNormalization


@st.composite
def configurations(draw):
    """Few different sizes: JAX compiles each operation again for another shape."""
    rank = draw(st.integers(2, 5))
    channels = draw(st.sampled_from([1, 2, 6, 8]))
    sizes = [draw(st.sampled_from([1, 3])) for _ in range(rank - 2)]
    normalizations = ["batch", "group", "layer", None]
    if rank > 2:
        normalizations.append("instance")
    activation = draw(st.sampled_from(list(numpy_layer.ACTIVATIONS)))
    config = {
        # the softmax of one number is 1, and Keras warns about it
        "num_components": draw(
            st.sampled_from([2 if activation == "softmax" else 1, 4])
        ),
        "normalization": draw(st.sampled_from(normalizations)),
        "groups": draw(st.sampled_from([g for g in range(1, 9) if channels % g == 0])),
        "epsilon": draw(st.sampled_from([1e-5, 1e-3])),
        "descriptor": draw(st.sampled_from(["mean_over_std", "mean", "mean_plus_max"])),
        "gate_hidden_units": draw(st.sampled_from([None, 1, 6])),
        "gate_normalization": draw(st.sampled_from(["auto", "batch", "group", None])),
        "gate_activation": activation,
    }
    return {
        "config": config,
        "axis": draw(st.sampled_from([-1, 1, rank - 1, 1 - rank])),
        "shape": (draw(st.sampled_from([1, 2, 4])), *sizes, channels),
        "masked": draw(st.booleans()),
        "dtype": draw(st.sampled_from(["float32", "mixed_bfloat16", "mixed_float16"])),
        "scale": draw(st.sampled_from([1e-3, 1.0, 100.0])),
        "shift": draw(st.sampled_from([0.0, 3.0])),
        "seed": draw(st.integers(0, 1000)),
    }


@pytest.mark.parametrize("training", [False, True])
@hypothesis.settings(deadline=None, max_examples=75, derandomize=True, database=None)
@hypothesis.given(case=configurations())
def test_layer_equals_the_numpy_model(case, training):
    config, shape = case["config"], case["shape"]
    channels_last = case["axis"] % len(shape) == len(shape) - 1
    rng = np.random.default_rng(case["seed"])
    layer = AttentiveNormalization(**config, axis=case["axis"], dtype=case["dtype"])
    order = [0, *range(1, len(shape))]
    if not channels_last:
        order = [0, len(shape) - 1, *range(1, len(shape) - 1)]
    layer.build(tuple(shape[axis] for axis in order))
    weights = {}
    for variable in layer.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        name = variable.path.removeprefix(f"{layer.name}/")
        weights[name] = ops.convert_to_numpy(variable).astype("float64")
    x = ops.cast(
        rng.normal(case["shift"], 1, shape) * case["scale"], layer.compute_dtype
    )
    x = ops.convert_to_numpy(ops.cast(x, "float32"))
    mask = rng.integers(0, 2, shape[:-1]).astype(bool)
    mask.flat[0] = True  # a batch without any position has no statistics
    mask = mask if case["masked"] else None

    flat = x.astype("float64").reshape(shape[0], -1, shape[-1])
    flat_mask = None if mask is None else mask.reshape(shape[0], -1)
    inputs = ops.cast(np.transpose(x, order), layer.compute_dtype)
    y, attention = numpy_layer.layer(flat, config, weights, flat_mask, training)
    attended = layer.attention(inputs, training=training, mask=mask)
    received = layer(inputs, training=training, mask=mask)

    assert backends.finite(received)
    difference = np.abs(ops.convert_to_numpy(attended) - attention)
    # a batch norm over nearly equal logits amplifies the rounding of float32
    assert difference.max() <= 2e-3
    received = ops.convert_to_numpy(ops.cast(received, "float32"))
    received = np.transpose(received, np.argsort(order)).reshape(flat.shape)
    bound = {"float32": 1e-4, "mixed_bfloat16": 2e-2, "mixed_float16": 3e-3}
    size = math.sqrt(np.square(y).mean()) + 1.0
    assert np.abs(received - y).max() <= bound[case["dtype"]] * size * 4


def test_reference_detects_an_error_of_one_percent():
    layer = AttentiveNormalization(3)
    layer.build((4, 5, 5, 8))
    x = np.random.default_rng(0).normal(size=(4, 5, 5, 8)).astype("float32")
    weights = {
        v.path.removeprefix(f"{layer.name}/"): ops.convert_to_numpy(v)
        for v in layer.variables
    }
    flat = x.reshape(4, 25, 8).astype("float64")
    config = {**layer.get_config(), "gate_activation": "hard_sigmoid"}
    received = backends.apply(layer, x).reshape(flat.shape)
    y, _ = numpy_layer.layer(flat, config, weights)
    np.testing.assert_allclose(received, y, atol=1e-5)
    weights["gate/kernel"] = weights["gate/kernel"] * 1.01
    y, _ = numpy_layer.layer(flat, config, weights)
    assert np.abs(received - y).max() > 1e-4


def test_batch_and_positions_may_be_dynamic():
    model = keras.Sequential(
        [
            keras.Input((None, None, 4)),
            AttentiveNormalization(3, normalization="group", groups=2),
        ]
    )
    layer = model.layers[0]
    for shape in ((1, 1, 1, 4), (3, 5, 2, 4), (2, 1, 7, 4)):
        x = np.random.default_rng(0).normal(size=shape).astype("float32")
        np.testing.assert_allclose(
            backends.apply(model, x), backends.apply(layer, x), atol=1e-6
        )
