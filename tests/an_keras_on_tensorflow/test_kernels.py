"""The compiled passes: when they run, and that both paths compute the same."""

import functools
import inspect
import warnings

import keras
import numpy as np
import numpy_layer
import pytest
import tensorflow as tf

import model_zoo
from an_keras import AttentiveNormalization, BatchNormalization, kernels_tf
from an_keras.kernels_tf import kernels

CONFIGURATIONS = {
    "batch": {},
    "group": {"normalization": "group", "groups": 4},
    "instance": {"normalization": "instance"},
    "layer": {"normalization": "layer"},
    "none": {"normalization": None},
    "mean": {"descriptor": "mean"},
    "hidden": {"gate_hidden_units": 6},
    "softmax": {"gate_activation": "softmax", "gate_normalization": None},
}
# 49 = 7 x 7, 53 is prime, 51 = 3 x 17: groups of 7, or of 16 with a remainder.
# 2 and 5 are few positions.
SHAPES = [(7, 7), (53, 1), (17, 3), (2, 1), (5,), (3, 4, 5), (16, 16)]


def step(layer, x, dy, mode):
    """Returns output, gradients and statistics of one training step, and its graph."""
    layer.build(x.shape)

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        variables = [variable.value for variable in layer.trainable_variables]
        return [y, *tape.gradient(y, [x, *variables], tf.cast(dy, y.dtype))]

    with kernels(mode):
        function = tf.function(run).get_concrete_function(x)
    results = [tf.cast(array, tf.float64).numpy() for array in function(x)]
    results += [variable.numpy() for variable in layer.non_trainable_variables]
    return results, str(function.graph.as_graph_def())


def both(make, shape, dtype="float32", shift=0.3, scale=2.0):
    """Runs the same step with the compiled passes and with plain operations."""
    rng = np.random.default_rng(0)
    x = tf.cast(rng.normal(shift, scale, shape), dtype)
    dy = rng.normal(size=shape)
    outcomes = []
    for mode in ("always", "never"):
        keras.utils.set_random_seed(0)
        outcomes.append(step(make(), x, dy, mode))
    return outcomes


def assert_close(a, b, tolerance):
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        assert np.abs(x - y).max() <= tolerance * max(np.abs(y).max(), 1e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_both_paths_compute_the_same(name, shape):
    (fast, graph), (plain, plain_graph) = both(
        lambda: AttentiveNormalization(3, **CONFIGURATIONS[name]), (5, *shape, 8)
    )
    assert "_XlaMustCompile" in graph and "_XlaMustCompile" not in plain_graph
    assert_close(fast, plain, 1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"descriptor": "mean_plus_max"},
        {"axis": 1},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_unsupported_arguments_use_plain_operations(arguments):
    layer = AttentiveNormalization(3, **arguments)
    x = tf.ones((3, 4, 5, 6), layer.compute_dtype)
    function = tf.function(lambda x: layer(x, training=True))
    with kernels("always"):
        graph = function.get_concrete_function(x).graph
    assert "Xla" not in str(graph.as_graph_def())


@pytest.mark.parametrize(
    ("shape", "compiled"),
    [
        ((16, 28, 28, 16), True),
        ((None, 28, 28, 16), True),
        ((1, 28, 28, 16), False),
        ((None, 4, 4, 16), False),
        ((None, None, None, 16), False),
        ((4096, 1, 1, 64), False),
    ],
    ids=str,
)
def test_training_on_large_inputs_is_compiled(shape, compiled):
    layer = AttentiveNormalization(3)
    layer.build(shape)

    def is_compiled(training):
        @tf.function
        def function(x):
            with tf.GradientTape():
                return layer(x, training=training)

        graph = function.get_concrete_function(tf.TensorSpec(shape)).graph
        return "Xla" in str(graph.as_graph_def())

    assert is_compiled(training=True) == compiled
    assert not is_compiled(training=False)
    layer.trainable = False
    assert not is_compiled(training=True)


@pytest.mark.parametrize("spec", [(None, 6, 5, 4), (None, None, None, 4)])
def test_unknown_sizes_give_the_same_results(spec):
    layer = AttentiveNormalization(3)
    layer.build(spec)
    x = np.random.default_rng(0).normal(size=(4, 6, 5, 4)).astype("float32")
    start = layer.get_weights()
    function = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec(spec)]
    )
    with kernels("always"):
        y, statistics = function(x), layer.get_weights()
    layer.set_weights(start)
    with kernels("never"):
        np.testing.assert_allclose(y, layer(x, training=True), atol=1e-5)
    for a, b in zip(statistics, layer.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    compute = keras.DTypePolicy(dtype).compute_dtype
    (fast, graph), (plain, _) = both(
        lambda: AttentiveNormalization(3, dtype=dtype), (4, 7, 7, 8), compute
    )
    assert "_XlaMustCompile" in graph
    assert_close(fast[2:], plain[2:], 1e-2)  # sums of rounded gradients
    assert_close(fast, plain, 2e-2)


def test_large_mean_does_not_reduce_precision():
    (fast, _), (plain, _) = both(
        lambda: AttentiveNormalization(3), (4, 9, 9, 8), shift=1000.0, scale=1.0
    )
    # at a mean of 1000, the inputs have a resolution of 6e-5 standard deviations
    assert_close(fast[:2], plain[:2], 1e-3)
    statistics = [a for a in fast[2:] if a.shape == (8,)]
    np.testing.assert_allclose(statistics[0], 100.0, rtol=1e-3)  # 0.1 * the mean
    np.testing.assert_allclose(statistics[1], 1.0, atol=0.05)


@pytest.mark.parametrize("ratio", [1e3, 1e4, 1e6], ids="{:g}".format)
@pytest.mark.parametrize("normalization", ["batch", "instance", "layer", None])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_error_is_proportional_to_the_mean(mode, normalization, ratio):
    layer = AttentiveNormalization(
        3, normalization=normalization, gate_normalization=None
    )
    x = np.random.default_rng(0).normal(ratio, 1.0, (4, 9, 9, 8)).astype("float32")
    layer.build(x.shape)
    weights = {
        variable.path.removeprefix(f"{layer.path}/"): variable.numpy().astype("float64")
        for variable in layer.variables
    }
    with kernels(mode):
        y = layer(x, training=True).numpy()
    expected, _ = numpy_layer.layer(
        x.reshape(4, 81, 8).astype("float64"),
        layer.get_config(),
        weights,
        training=True,
    )
    error = np.abs(y.reshape(expected.shape) - expected).max() / np.abs(expected).max()
    assert error <= 3e-7 * ratio


def test_inference_is_compiled_only_on_request():
    layer = AttentiveNormalization(3)
    layer.build((None, 6, 6, 4))
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 6, 6, 4)), tf.float32)

    def trace(mode):
        with kernels(mode):
            function = tf.function(layer).get_concrete_function(x)
        return function(x), "Xla" in str(function.graph.as_graph_def())

    plain, is_compiled = trace("training")
    assert not is_compiled
    fast, is_compiled = trace("always")
    assert is_compiled
    np.testing.assert_allclose(fast, plain, atol=1e-5)


def test_contexts_may_exit_in_any_order():
    """Threads exit their contexts in any order."""
    small = tf.ones((1, 2, 2, 3))
    one, other = kernels("never"), kernels("always")
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert kernels_tf.apply_here(small, training=False)  # "always"
    other.__exit__(None, None, None)
    large = tf.ones((1, 400, 400, 3))
    with tf.GradientTape():
        assert kernels_tf.apply_here(large, training=True)
        assert not kernels_tf.apply_here(large, training=False)


def test_unknown_mode_raises():
    with (
        pytest.raises(ValueError, match="Received: mode='sometimes'"),
        kernels("sometimes"),
    ):
        pass


@pytest.mark.parametrize("arguments", [{}, {"normalization": "group", "groups": 2}])
def test_second_order_gradients_equal_those_of_plain_operations(arguments):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(4, 5, 5, 4)), tf.float32)
    weight = tf.constant(rng.normal(size=(4, 5, 5, 4)), tf.float32)
    layer = AttentiveNormalization(3, **arguments)
    layer.build(x.shape)
    outcomes = []
    for mode in ("always", "never"):

        @tf.function
        def second(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = tf.reduce_sum(tf.sin(layer(x, training=True)) * weight)
                first = tf.reduce_sum(inner.gradient(y, x) ** 2)
            return outer.gradient(
                first, [x, layer.gamma.value, layer.gate.kernel.value]
            )

        with kernels(mode):
            outcomes.append([array.numpy() for array in second(x)])
    for a, b in zip(*outcomes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_training_works_inside_a_branch(normalization):
    """Networks that skip blocks at random do this."""
    layer = AttentiveNormalization(3, normalization=normalization)
    layer.build((16, 28, 28, 16))
    x = tf.random.normal((16, 28, 28, 16))

    @tf.function
    def gradient(x, use):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cond(use, lambda: layer(x, training=True), lambda: x)
        return tape.gradient(y, [x, layer.gamma.value], x)

    outcomes = []
    for mode in ("training", "never"):
        with kernels(mode):
            outcomes.append(
                gradient.get_concrete_function(x, tf.constant(True))(
                    x, tf.constant(True)
                )
            )
    for a, b in zip(*outcomes, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("make", [AttentiveNormalization, BatchNormalization])
def test_outputs_have_the_compute_dtype(make):
    layer = make(dtype="mixed_float16", autocast=False)
    with kernels("always"):
        y = layer(tf.ones((2, 4, 4, 3)), training=True)
    assert y.dtype == tf.float16


def test_image_without_pixels_stays_empty():
    layer = AttentiveNormalization(3)
    with kernels("always"):
        assert layer(tf.ones((4, 0, 5, 8)), training=True).shape == (4, 0, 5, 8)


def test_empty_batch_leaves_the_statistics_unchanged():
    layer = AttentiveNormalization(3)
    layer.build((None, 4, 4, 6))
    before = layer.get_weights()
    with kernels("always"):
        y = layer(np.zeros((0, 4, 4, 6), "float32"), training=True)
    assert y.shape == (0, 4, 4, 6)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "name", ["resnet8_an", pytest.param("resnext50_32x4d_an", marks=pytest.mark.slow)]
)
def test_exports_contain_only_operations_that_servers_can_run(name, tmp_path):
    """Servers reject compiled functions; parallel requests break fused batch norms."""
    model = model_zoo.create_model(name, input_shape=(32, 32, 3))
    model(np.zeros((2, 32, 32, 3), "float32"), training=True)
    model.export(tmp_path / "model", verbose=False)
    graph = (tmp_path / "model" / "saved_model.pb").read_bytes()
    assert b"XlaMustCompile" not in graph
    assert b"FusedBatchNorm" not in graph


def run_functions_eagerly(layer, x):
    tf.config.run_functions_eagerly(True)
    try:
        return tf.function(layer)(x, training=True)
    finally:
        tf.config.run_functions_eagerly(False)


def lifted(layer, x):
    """Calls the layer outside of the graph of a function that is traced."""
    outputs = []

    @tf.function
    def function():
        with tf.init_scope():
            outputs.append(layer(x, training=True))

    function()
    return outputs[0]


def in_py_function(layer, x):
    @tf.function
    def function(x):
        return tf.py_function(lambda x: layer(x, training=True), [x], tf.float32)

    return function(x)


def compiled_to_run_eagerly(layer, x):
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.train_on_batch(x, x)
    return layer(x, training=True)


EAGER_CALLS = {
    "call": lambda layer, x: layer(x, training=True),
    "stateless": lambda layer, x: layer.stateless_call(
        layer.trainable_variables, layer.non_trainable_variables, x, training=True
    )[0],
    "run_functions_eagerly": run_functions_eagerly,
    "init_scope": lifted,
    "py_function": in_py_function,
    "run_eagerly": compiled_to_run_eagerly,
}


def test_exports_of_layers_called_in_training_mode_can_be_served(tmp_path):
    inputs = keras.Input((64, 64, 8))
    outputs = AttentiveNormalization(3)(inputs, training=True)
    outputs = BatchNormalization()(outputs, training=True)
    inner = keras.Sequential([keras.Input((64, 64, 8)), AttentiveNormalization(3)])
    model = keras.Model(inputs, inner(outputs, training=True))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(1, 3, (16, 64, 64, 8)).astype("float32")
    model.fit(x, x, verbose=0)
    y = model(x)
    model.export(tmp_path / "model", verbose=False)
    graph = (tmp_path / "model" / "saved_model.pb").read_bytes()
    assert b"XlaMustCompile" not in graph
    assert b"FusedBatchNorm" not in graph
    served = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(served.serve(x), y, atol=1e-5)


class TestFusedBatchNormalization:
    """Compiled training uses TensorFlow's fused operation and matches Keras."""

    @pytest.mark.parametrize(
        "shape", [(4, 5, 5, 6), (1, 1, 1, 3), (2, 3, 1, 4)], ids=str
    )
    @pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False}])
    def test_training_step_equals_that_of_keras(self, arguments, shape):
        makes = (BatchNormalization, keras.layers.BatchNormalization)
        rng = np.random.default_rng(0)
        x = tf.constant(rng.normal(3.0, 2.0, shape), tf.float32)
        dy = rng.normal(size=shape)
        (fused, graph), (keras_own, _) = (
            step(make(**arguments), x, dy, "training") for make in makes
        )
        assert "FusedBatchNormV3" in graph and "Xla" not in graph
        assert_close(fused, keras_own, 1e-5)

    @pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
    def test_second_order_gradients_equal_those_of_the_equation(self, run):
        """Those of the Keras layer differ, because `tf.nn.moments` stops a gradient."""
        rng = np.random.default_rng(0)
        x, dy, direction = (
            tf.constant(rng.normal(2.0, 1.0, (4, 5, 5, 6)), tf.float32)
            for _ in range(3)
        )
        layer = BatchNormalization()
        layer.build(x.shape)

        def equation(x):
            centred = x - tf.reduce_mean(x, (0, 1, 2))
            variance = tf.reduce_mean(centred**2, (0, 1, 2))
            return centred / tf.sqrt(variance + layer.epsilon)

        def second(function):
            with tf.GradientTape() as outer:
                outer.watch([x, dy])
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = function(x)
                first = inner.gradient(y, x, dy)
            return outer.gradient(first, [x, dy], direction)

        pairs = zip(
            run(lambda: second(functools.partial(layer, training=True)))(),
            second(equation),
            strict=True,
        )
        for ours, theirs in pairs:
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(ours, theirs, atol=3e-5 * scale)

    def test_renormalization_equals_that_of_keras(self):
        if (
            "renorm"
            not in inspect.signature(keras.layers.BatchNormalization).parameters
        ):
            return  # Keras before 3.15
        x = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 5, 6)).astype("float32")
        outcomes = []
        for make in (BatchNormalization, keras.layers.BatchNormalization):
            layer = make(renorm=True)
            outcomes.append([layer(x, training=True), *layer.get_weights()])
        for ours, theirs in zip(*outcomes, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def test_inference_equals_that_of_keras(self):
        x = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 5, 6)).astype("float32")
        ours, theirs = BatchNormalization(), keras.layers.BatchNormalization()
        for layer in (ours, theirs):
            layer.build(x.shape)
            layer.moving_mean.assign(np.arange(6))
            layer.moving_variance.assign(np.arange(6) + 1e-6)  # epsilon matters
        for training in (False, None):
            np.testing.assert_allclose(
                ours(x, training=training),
                theirs(x, training=training),
                rtol=1e-5,
                atol=1e-6,
            )
        ours.trainable = False
        frozen = ours(x, training=True)
        np.testing.assert_allclose(frozen, theirs(x), rtol=1e-5, atol=1e-6)

    def test_never_mode_does_not_use_the_fused_operation(self):
        x = tf.ones((2, 3, 3, 4))
        _, graph = step(BatchNormalization(), x, np.ones(x.shape), "never")
        assert "FusedBatchNorm" not in graph

    def test_inference_never_uses_the_fused_operation(self):
        """One operation of a served graph handles several requests at once."""
        layer, frozen = BatchNormalization(), BatchNormalization(trainable=False)

        def infer(x):
            return layer(x), layer(x, training=False), frozen(x, training=True)

        function = tf.function(infer).get_concrete_function(tf.ones((2, 3, 3, 4)))
        assert "FusedBatchNorm" not in str(function.graph.as_graph_def())

    @pytest.mark.parametrize("call", EAGER_CALLS.values(), ids=EAGER_CALLS.keys())
    def test_eager_calls_never_use_the_fused_operation(self, call, monkeypatch):
        """Eager calls share its kernel, which is not thread-safe."""
        layer = BatchNormalization()
        layer.build((None, 3, 3, 4))
        x = tf.constant(np.random.default_rng(0).normal(2, 1, (2, 3, 3, 4)), tf.float32)
        taken = []
        monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", lambda **_: taken.append(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about functions that run eagerly
            outputs = call(layer, x)
        assert not taken
        np.testing.assert_allclose(np.mean(outputs), 0.0, atol=1e-5)

    def test_empty_batch_leaves_the_statistics_unchanged(self):
        layer = BatchNormalization()
        layer.build((None, 2, 2, 4))
        before = layer.get_weights()
        layer(np.zeros((0, 2, 2, 4), "float32"), training=True)
        for old, new in zip(before, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
