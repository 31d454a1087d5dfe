"""Behaviour of the layer for users: shapes, modes, files, errors."""

import functools
import json

import backends
import keras
import numpy as np
import numpy_layer
import pytest
from keras import layers, ops

from an_keras import AttentiveNormalization


def numbers(layer):
    """Sets every weight to a value other than its initial one; returns all by name."""
    rng = np.random.default_rng(0)
    values = {}
    for variable in layer.variables:
        name = variable.path.removeprefix(f"{layer.name}/")
        value = rng.uniform(0.5, 1.5, variable.shape)
        variable.assign(value)
        values[name] = ops.convert_to_numpy(variable).astype("float64")
    return values


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(4, 6), (3, 5, 6), (2, 3, 5, 6), (3, 1, 1, 6), (1, 4, 4, 6), (2, 2, 3, 2, 6)],
)
def test_layer_equals_the_equations_in_every_rank(shape, training):
    layer = AttentiveNormalization(num_components=3, dtype="float64")
    layer.build(shape)
    weights = numbers(layer)
    x = np.random.default_rng(1).normal(1.0, 2.0, shape)
    flat = x.reshape(shape[0], -1, shape[-1])

    y = backends.apply(layer, x, training=training)

    expected, _ = numpy_layer.layer(
        flat, layer.get_config(), weights, training=training
    )
    tolerance = 1e-9 if backends.KEEPS_DOUBLE else 2e-5
    pairs = [(y, expected.reshape(shape))]
    if training:
        mean = 0.9 * weights["moving_mean"] + 0.1 * flat.mean((0, 1))
        variance = 0.9 * weights["moving_variance"] + 0.1 * flat.var((0, 1))
        pairs += [(layer.moving_mean, mean), (layer.moving_variance, variance)]
    for received, wanted in pairs:
        received = ops.convert_to_numpy(received)
        np.testing.assert_allclose(received, wanted, rtol=tolerance, atol=tolerance)


def test_channels_first_equals_channels_last():
    x = np.random.default_rng(1).normal(size=(2, 5, 3, 6)).astype("float32")
    last, first = AttentiveNormalization(3), AttentiveNormalization(3, axis=1)
    last.build((2, 5, 3, 6))
    first.build((2, 6, 5, 3))
    numbers(last)
    first.set_weights(last.get_weights())
    expected = backends.apply(last, x, training=True)
    received = backends.apply(first, np.transpose(x, (0, 3, 1, 2)), training=True)
    np.testing.assert_allclose(
        np.transpose(received, (0, 2, 3, 1)), expected, atol=1e-5
    )


def test_masked_positions_are_ignored():
    x = np.random.default_rng(1).normal(size=(3, 7, 4)).astype("float32")
    mask = np.ones((3, 7), bool)
    mask[:, 5:] = False
    cut, masked = AttentiveNormalization(3), AttentiveNormalization(3)
    cut.build((3, 5, 4))
    masked.build((3, 7, 4))
    masked.set_weights(cut.get_weights())
    expected = backends.apply(cut, x[:, :5], training=True)
    x[:, 5:] = 1e6
    received = backends.apply(masked, x, training=True, mask=mask)[:, :5]
    np.testing.assert_allclose(received, expected, atol=1e-5)
    for one, other in zip(cut.variables, masked.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-5
        )


@pytest.mark.parametrize("shape", [(4, 5, 6, 8), (4, 8)])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_masked_values_may_be_arbitrary(shape, value):
    layer = AttentiveNormalization(3, descriptor="mean_plus_max")
    mask = np.ones(shape[:-1], bool)
    mask[1] = False
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    x[1] = value
    y = backends.apply(layer, x, training=True, mask=mask)
    assert np.isfinite(y[mask]).all()
    assert all(np.isfinite(weight).all() for weight in layer.get_weights())


def test_mask_axes_of_size_one_broadcast_and_other_shapes_raise():
    x = np.random.default_rng(1).normal(size=(4, 5, 6, 8)).astype("float32")
    mask = np.arange(5) < np.array([1, 3, 5, 2])[:, None]
    one, other = AttentiveNormalization(3), AttentiveNormalization(3)
    one.build(x.shape), other.build(x.shape)
    other.set_weights(one.get_weights())
    short = backends.apply(one, x, training=True, mask=mask[..., None])
    full = np.repeat(mask[..., None], 6, axis=-1)
    whole = backends.apply(other, x, training=True, mask=full)
    np.testing.assert_allclose(short, whole, atol=1e-6)
    for wrong in (np.ones((4, 5), bool), np.ones((4, 5, 5), bool)):
        with pytest.raises(ValueError, match="`mask` must have the shape of `inputs`"):
            one(x, mask=wrong)


def test_mask_may_be_a_list_or_nonzero_numbers():
    x = np.random.default_rng(1).normal(size=(2, 4, 8)).astype("float32")
    layer = AttentiveNormalization(3)
    mask = [[True, True, False, False], [True, True, True, False]]
    expected = backends.apply(layer, x, mask=mask)
    numbers = np.array([[0.5, -1, 0, 0], [2, 1, 1, 0]], "float32")
    np.testing.assert_array_equal(backends.apply(layer, x, mask=numbers), expected)


def test_attention_with_other_channels_raises():
    layer = AttentiveNormalization(3)
    layer.build((None, 4, 4, 6))
    with pytest.raises(ValueError, match="`inputs` must have 6 channels"):
        layer.attention(np.ones((2, 4, 4, 5), "float32"))


def test_gate_ignores_fully_masked_samples():
    layer = AttentiveNormalization(3)
    x = np.random.default_rng(1).normal(size=(4, 5, 8)).astype("float32")
    mask = np.repeat(np.array([True, True, False, False])[:, None], 5, axis=1)
    few = ops.convert_to_numpy(layer.attention(x[:2], training=True))
    all_of_them = ops.convert_to_numpy(layer.attention(x, training=True, mask=mask))
    np.testing.assert_allclose(all_of_them[:2], few, atol=1e-5)


@pytest.mark.parametrize("is_masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("descriptor", ["mean_over_std", "mean_plus_max"])
@pytest.mark.parametrize("normalization", ["batch", "group", "instance", "layer", None])
@pytest.mark.parametrize("shape", [(0, 5, 5, 4), (2, 0, 5, 4), (0, 0, 5, 4)], ids=str)
def test_empty_inputs_leave_the_statistics_unchanged(
    shape, normalization, descriptor, is_masked
):
    layer = AttentiveNormalization(
        3,
        normalization=normalization,
        groups=2,
        descriptor=descriptor,
        gate_normalization="batch",
        gate_hidden_units=5,
    )
    layer.build((None, None, None, 4))
    before = layer.get_weights()
    x, mask = np.zeros(shape, "float32"), np.ones(shape[:-1], bool)
    for training in (True, False):
        y = layer(x, training=training, mask=mask if is_masked else None)
        assert tuple(y.shape) == shape
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("axis", [1, -1])
def test_fully_masked_batch_leaves_the_statistics_unchanged(axis):
    layer = AttentiveNormalization(3, axis=axis)
    layer.build((None, 4, 4))
    before = layer.get_weights()
    mask = np.zeros((2, 4), bool)
    y = layer(np.ones((2, 4, 4), "float32"), training=True, mask=mask)
    assert backends.finite(y)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_numpy_numbers_and_callables_are_accepted():
    def ones(shape, dtype=None):
        return ops.ones(shape, dtype)

    layer = AttentiveNormalization(
        np.int64(3),
        epsilon=np.float32(1e-3),
        gate_hidden_units=np.int32(4),
        gate_initializer=ones,
    )
    layer.build((None, 8))
    config = layer.get_config()
    assert json.dumps([config[name] for name in ("num_components", "epsilon")])
    assert (ops.convert_to_numpy(layer.gate.hidden_kernel) == 1).all()


def test_variables_have_the_names_and_shapes_of_saved_files():
    layer = AttentiveNormalization(3, gate_hidden_units=6, name="an")
    layer.build((None, None, None, 4))
    gate = {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)}
    hidden = {f"gate/hidden_{name}": (6,) for name in gate}
    assert {v.path: tuple(v.shape) for v in layer.variables} == {
        f"an/{name}": shape
        for name, shape in {
            "gamma": (3, 4),
            "beta": (3, 4),
            "moving_mean": (4,),
            "moving_variance": (4,),
            "gate/kernel": (6, 3),
            "gate/hidden_kernel": (4, 6),
            **{f"gate/{name}": shape for name, shape in gate.items()},
            **hidden,
        }.items()
    }


def test_layers_start_with_different_tables():
    one, other = AttentiveNormalization(3), AttentiveNormalization(3)
    one.build((None, 8)), other.build((None, 8))
    for name in ("gamma", "beta"):
        pair = [ops.convert_to_numpy(getattr(layer, name)) for layer in (one, other)]
        assert np.abs(pair[0] - pair[1]).max() > 1e-3
    assert abs(ops.convert_to_numpy(one.gamma).mean() - 1.0) < 0.1


def test_frozen_layer_and_its_gate_run_in_inference_mode():
    layer = AttentiveNormalization(3)
    layer.build((4, 5, 5, 8))
    numbers(layer)
    x = np.random.default_rng(1).normal(size=(4, 5, 5, 8))
    expected = backends.apply(layer, x, training=False)
    layer.trainable = False
    before = layer.get_weights()
    received = backends.apply(layer, x, training=True)
    np.testing.assert_array_equal(received, expected)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("how", ["constructor", "clone", "file"])
def test_frozen_layer_stays_frozen(how, tmp_path):
    model = keras.Sequential([keras.Input((5, 5, 8)), AttentiveNormalization(3)])
    model.layers[0].trainable = False
    if how == "constructor":
        frozen = AttentiveNormalization(3, trainable=False)
        model = keras.Sequential([keras.Input((5, 5, 8)), frozen])
    elif how == "clone":
        model = keras.models.clone_model(model)
    else:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    before = model.get_weights()
    x = np.random.default_rng(1).normal(size=(4, 5, 5, 8))
    pair = [backends.apply(model, x, training=training) for training in (False, True)]
    np.testing.assert_array_equal(*pair)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not model.trainable_variables


def test_frozen_gate_leaves_the_rest_trainable():
    layer = AttentiveNormalization(3)
    layer.build((4, 5, 5, 8))
    layer.gate.trainable = False
    names = {variable.path.split("/")[-1] for variable in layer.trainable_variables}
    assert names == {"gamma", "beta"} and len(layer.trainable_variables) == 2
    before = {v.path: ops.convert_to_numpy(v).copy() for v in layer.variables}
    x = np.random.default_rng(1).normal(2, 3, (4, 5, 5, 8)).astype("float32")
    layer(x, training=True)
    for variable in layer.variables:
        moved = (ops.convert_to_numpy(variable) != before[variable.path]).any()
        is_statistic = variable.path.split("/")[-1].startswith("moving")
        assert moved == (is_statistic and "gate" not in variable.path)


def test_regularizers_and_constraints_apply_to_their_weights():
    layer = AttentiveNormalization(
        3,
        gate_hidden_units=5,
        gamma_regularizer=keras.regularizers.L2(1.0),
        beta_regularizer=keras.regularizers.L2(10.0),
        gate_regularizer=keras.regularizers.L2(100.0),
        gamma_constraint="non_neg",
        beta_constraint="unit_norm",
        gate_constraint="max_norm",
    )
    layer.build((None, 8))
    gate = (layer.gate.kernel, layer.gate.hidden_kernel)
    expected = sum(
        factor * np.square(ops.convert_to_numpy(weight)).sum()
        for factor, weight in zip(
            (1, 10, 100, 100), (layer.gamma, layer.beta, *gate), strict=True
        )
    )
    loss = sum(ops.convert_to_numpy(each) for each in layer.losses)
    assert loss == pytest.approx(expected, rel=1e-5)
    kinds = [type(weight.constraint) for weight in (layer.gamma, layer.beta, *gate)]
    constraints = keras.constraints
    assert kinds == [
        constraints.NonNeg,
        constraints.UnitNorm,
        constraints.MaxNorm,
        constraints.MaxNorm,
    ]


def test_attention_matches_the_mixture_and_updates_nothing():
    layer = AttentiveNormalization(3)
    x = np.random.default_rng(1).normal(size=(4, 5, 5, 8)).astype("float32")
    before = [np.array(w) for w in (layer(x), layer.get_weights())[1]]
    assert layer.attention(x, training=True).shape == (4, 3)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    attention = ops.convert_to_numpy(layer.attention(x))
    assert attention.min() >= 0 and attention.max() <= 1
    x_hat = x / np.sqrt(1 + 1e-5)
    gamma, beta = (
        attention @ ops.convert_to_numpy(t) for t in (layer.gamma, layer.beta)
    )
    expected = gamma[:, None, None] * x_hat + beta[:, None, None]
    np.testing.assert_allclose(backends.apply(layer, x), expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_large_half_precision_inputs_stay_finite(policy):
    layer = AttentiveNormalization(3, dtype=policy)
    x = np.random.default_rng(1).normal(30000.0, 8000.0, (4, 8, 8, 16))
    y = layer(ops.cast(x, layer.compute_dtype), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert backends.finite(y)


def test_variance_is_accurate_for_a_large_mean():
    layer = AttentiveNormalization(3)
    noise = np.random.default_rng(1).normal(size=(8, 6, 6, 4))
    layer(1000.0 + noise, training=True)
    variance = (ops.convert_to_numpy(layer.moving_variance) - 0.9) / 0.1
    np.testing.assert_allclose(variance, noise.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("shape", [(4, 5, 5, 8), (4, 1, 1, 8), (1, 5, 5, 8)])
def test_every_trainable_weight_gets_a_finite_gradient(shape):
    layer = AttentiveNormalization(3)
    layer.build(shape)
    x, dy = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    y, dx, gradients = backends.run(layer, x, dy, training=True)
    assert len(gradients) == 5
    for array in (y, dx, *gradients.values()):
        assert np.isfinite(array).all()


def test_config_contains_the_arguments_and_recreates_the_layer():
    arguments = {
        "num_components": 4,
        "normalization": "group",
        "groups": 2,
        "axis": 1,
        "momentum": 0.8,
        "epsilon": 1e-4,
        "descriptor": "mean",
        "descriptor_epsilon": 1e-2,
        "gate_hidden_units": 8,
        "gate_normalization": "group",
        "gate_activation": "softmax",
        "synchronized": keras.backend.backend() != "torch",
    }
    layer = AttentiveNormalization(**arguments, gamma_regularizer="l2", name="an")
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    again = AttentiveNormalization.from_config(config)
    assert again.get_config() == config


@pytest.mark.slow
def test_keras_file_loads_after_importing_only_an_keras(tmp_path, command):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3),
            AttentiveNormalization(3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype("float32")
    model(x, training=True)  # updates the statistics
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x)
    program = (
        "import an_keras, keras, numpy as np\n"
        f"model = keras.models.load_model('{tmp_path}/model.keras')\n"
        f"y = model(np.load('{tmp_path}/x.npy'))\n"
        f"np.save('{tmp_path}/y.npy', keras.ops.convert_to_numpy(y))\n"
    )
    command("-c", program)
    expected = backends.apply(model, x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-6)


def test_weights_file_keeps_every_value(tmp_path):
    def build():
        return keras.Sequential([keras.Input((6, 6, 4)), AttentiveNormalization(3)])

    one, other = build(), build()
    numbers(one.layers[0])
    one.save_weights(tmp_path / "an.weights.h5")
    other.load_weights(tmp_path / "an.weights.h5")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fit_learns_and_updates_the_statistics():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 128)
    x = rng.normal(size=(128, 6, 6, 4)) * (1 + labels[:, None, None, None])
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            AttentiveNormalization(3),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    before = ops.convert_to_numpy(model.layers[0].moving_variance)
    history = model.fit(x, labels, batch_size=16, epochs=10, verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    assert (
        np.abs(ops.convert_to_numpy(model.layers[0].moving_variance) - before).min() > 0
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"num_components": 0}, ValueError, "`num_components` must be >= 1"),
        ({"num_components": 2.5}, TypeError, "`num_components` must be an integer"),
        ({"gate_hidden_units": 0}, ValueError, "`gate_hidden_units` must be >= 1"),
        ({"groups": 0}, ValueError, "`groups` must be >= 1"),
        ({"num_components": 10**30}, ValueError, "and at most 1048576. Received"),
        ({"dtype": "int32"}, ValueError, "`dtype` must be a floating point type"),
        ({"normalization": "bn"}, ValueError, "`normalization` must be one of 'batch'"),
        ({"descriptor": "std"}, ValueError, "`descriptor` must be one of"),
        (
            {"gate_normalization": "x"},
            ValueError,
            "`gate_normalization` must be one of",
        ),
        ({"momentum": "0.9"}, TypeError, "`momentum` must be a number"),
        ({"epsilon": None}, TypeError, "`epsilon` must be a number"),
        ({"epsilon": float("inf")}, ValueError, "`epsilon` must be > 0 and finite"),
        ({"synchronized": "no"}, TypeError, "`synchronized` must be a boolean"),
        ({"normalization": ["batch"]}, ValueError, "`normalization` must be one of"),
        ({"axis": 1.0}, TypeError, "`axis` must be an integer"),
        ({"momentum": 1.5}, ValueError, r"`momentum` must be in \[0, 1\]"),
        ({"epsilon": 0.0}, ValueError, "`epsilon` must be > 0"),
        ({"epsilon": 1e-60}, ValueError, "`epsilon` must be > 0"),
        ({"epsilon": 10**400}, ValueError, "`epsilon` must be .* finite in float32"),
        ({"descriptor_epsilon": -1.0}, ValueError, "`descriptor_epsilon` must be > 0"),
        (
            {"gate_activation": "glu"},
            ValueError,
            r"must map logits \(N, K\) to weights",
        ),
        ({"gate_activation": "threshold"}, ValueError, "missing 2 required positional"),
        ({"gate_activation": lambda x: x > 0}, ValueError, "weights .* of type bool"),
        (
            {"gate_activation": lambda x: ops.softmax(x, axis=0)},
            ValueError,
            "each sample independently",
        ),
        (
            {"gate_activation": layers.Softmax(axis=0)},
            ValueError,
            "each sample independently",
        ),
        ({"gate_activation": ops.log}, ValueError, "must be finite"),
    ],
)
def test_invalid_arguments_raise(arguments, error, words):
    with pytest.raises(error, match=words):
        AttentiveNormalization(**arguments)


@pytest.mark.parametrize(
    ("arguments", "shape", "words"),
    [
        ({}, (None,), "of rank 2 to 5"),
        ({}, (None, 2, 2, 2, 2, 4), "of rank 2 to 5"),
        ({"axis": 2}, (None, 4, 4, 4), "`axis` must be the last axis or 1"),
        ({"axis": 0}, (None, 4), "`axis` must be the last axis or 1"),
        ({}, (None, 4, 4, None), "must have a static size"),
        ({}, (None, 4, 4, 0), "must have a static size of at least 1"),
        (
            {"normalization": "group"},
            (None, 4, 4, 100),
            "`groups` must divide .* groups=32, channels=100",
        ),
        ({"normalization": "instance"}, (None, 4), "needs positions"),
    ],
)
def test_incompatible_shapes_raise(arguments, shape, words):
    with pytest.raises(ValueError, match=words):
        AttentiveNormalization(**arguments).build(shape)


def sparsemax(x, is_right=False):
    """Sparsemax (Martins and Astudillo 2016) if `is_right`, else as in Keras 3.15.1."""
    ordered = ops.flip(ops.sort(x, axis=-1), axis=-1)
    totals = ops.cumsum(ordered, axis=-1)
    ranks = ops.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = ops.cast(ordered - (totals - 1) / ranks > 0, x.dtype)
    total = ops.sum((ordered if is_right else totals) * support, -1, keepdims=True)
    return ops.maximum(x - (total - 1) / ops.sum(support, -1, keepdims=True), 0.0)


def is_mended():
    row = ops.convert_to_tensor([[0.5, 0.4, 0.3, 0.2]])
    return abs(float(ops.sum(keras.activations.sparsemax(row))) - 1) < 1e-3


@pytest.mark.parametrize(
    "activation",
    [
        sparsemax,
        *(
            pytest.param(
                spelling,
                marks=pytest.mark.skipif(is_mended(), reason="Keras fixed sparsemax"),
            )
            for spelling in (
                "sparsemax",
                keras.activations.sparsemax,
                keras.activations.serialize(keras.activations.sparsemax),
                layers.Activation("sparsemax"),
            )
        ),
    ],
)
@pytest.mark.parametrize("num_components", [2, 10])
def test_distribution_that_does_not_add_up_to_1_is_rejected(activation, num_components):
    with pytest.raises(ValueError, match="add up to 1 for some logits and to 0.*spars"):
        AttentiveNormalization(num_components, gate_activation=activation)


@pytest.mark.parametrize("num_components", [2, 10])
@pytest.mark.parametrize(
    "activation",
    [
        functools.partial(sparsemax, is_right=True),
        "softmax",
        "relu",
        "hard_shrink",
        "linear",
    ],
)
def test_other_activations_are_accepted(activation, num_components):
    layer = AttentiveNormalization(num_components, gate_activation=activation)
    assert backends.finite(layer(np.ones((2, 4, 4, 3), "float32")))
