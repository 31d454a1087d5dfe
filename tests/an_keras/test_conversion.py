"""Conversion of existing models, without changing what they compute."""

import backends
import keras
import numpy as np
import pytest
from keras import layers, ops

import an_keras
from an_keras import AttentiveNormalization, convert_normalization
from an_keras.keras_internals import flatten_layers


def norms_as_after_training(model, seed=0):
    """Sets random statistics and affine parameters, as after training."""
    rng = np.random.default_rng(seed)
    for layer in flatten_layers(model):
        for name in ("gamma", "moving_variance"):
            if getattr(layer, name, None) is not None:
                variable = getattr(layer, name)
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        for name in ("beta", "moving_mean"):
            if getattr(layer, name, None) is not None:
                variable = getattr(layer, name)
                variable.assign(rng.normal(0.0, 0.3, variable.shape))
    return model


def network(norm=layers.BatchNormalization, **arguments):
    """A stem, a 3x3 convolution with padding and dropout before its norm, and a 1x1."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, strides=2, name="stem")(inputs)
    x = layers.ReLU()(norm(name="stem_norm", **arguments)(x))
    x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(8, 3, name="spatial")(x)
    x = layers.Dropout(0.1)(x)
    x = layers.ReLU()(norm(name="spatial_norm", **arguments)(x))
    x = layers.Conv2D(8, 1, name="point")(x)
    x = norm(name="point_norm", **arguments)(x)
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    return norms_as_after_training(keras.Model(inputs, x, name="network"))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(4, 12, 12, 3)).astype("float32")


def assert_same_function(old, new, x, training=False):
    if training:  # dropout would cause differences
        for model in (old, new):
            for layer in model.layers:
                if isinstance(layer, layers.Dropout):
                    layer.rate = 0.0
    a, b = (backends.apply(model, x, training=training) for model in (old, new))
    np.testing.assert_allclose(b, a, atol=1e-5 * a.std())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("norm", "arguments"),
    [
        (layers.BatchNormalization, {}),
        (layers.BatchNormalization, {"scale": False}),
        (layers.BatchNormalization, {"center": False, "axis": 3}),
        (an_keras.BatchNormalization, {"momentum": 0.7, "epsilon": 0.01}),
        (layers.GroupNormalization, {"groups": 4}),
        (layers.GroupNormalization, {"groups": -1}),
        (layers.LayerNormalization, {}),
        (layers.LayerNormalization, {"scale": False, "center": False}),
    ],
)
def test_conversion_preserves_the_outputs_of_every_kind(
    norm, arguments, training, images
):
    old = network(norm, **arguments)
    new = convert_normalization(old, where="all")
    converted = [e for e in new.layers if isinstance(e, AttentiveNormalization)]
    assert len(converted) == 3
    for layer in converted:
        source = old.get_layer(layer.name)
        assert layer.epsilon == source.epsilon
        assert layer.momentum == getattr(source, "momentum", layer.momentum)
    assert_same_function(old, new, images, training)


def test_published_place_is_found_in_the_graph():
    report = []
    new = convert_normalization(network(), report=report)
    assert isinstance(new.get_layer("spatial_norm"), AttentiveNormalization)
    assert [tuple(row) for row in report] == [
        ("stem_norm", "batch", None, "kept", "not selected by `where`"),
        ("spatial_norm", "batch", 10, "converted", "selected"),
        ("point_norm", "batch", None, "kept", "not selected by `where`"),
    ]


def test_norms_before_convolutions_are_selected_if_none_follow():
    """A DenseNet has such norms."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="first")(x))
    x = layers.Conv2D(8, 1)(x)
    x = layers.ReLU()(layers.BatchNormalization(name="second")(x))
    x = layers.Conv2D(8, 3)(x)
    model = keras.Model(inputs, x)
    report = []
    convert_normalization(model, report=report)
    assert [row.action for row in report] == ["kept", "converted"]


@pytest.mark.parametrize(
    "where", [r"^(stem|point)", lambda layer: not layer.name.startswith("spatial")]
)
def test_norms_are_selected_by_name_or_function(where):
    new = convert_normalization(network(), where=where)
    for name in ("stem_norm", "point_norm"):
        assert isinstance(new.get_layer(name), AttentiveNormalization)
    assert type(new.get_layer("spatial_norm")) is layers.BatchNormalization


@pytest.mark.parametrize(
    ("num_components", "expected"),
    [
        (None, [10, 10, 20]),
        (4, [4, 4, 4]),
        ({2: 3, 8: 5, 16: 7}, [3, 5, 7]),
        (lambda layer: len(layer.name), [2, 2, 2]),
    ],
)
def test_number_of_components_depends_on_the_stride(num_components, expected):
    model = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(4, 3, strides=2),
            layers.BatchNormalization(name="n1"),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3, strides=2, padding="same"),
            layers.BatchNormalization(name="n2"),
            layers.SeparableConv2D(4, 3, strides=(2, 2), padding="same"),
            layers.BatchNormalization(name="n3"),
        ]
    )
    new = convert_normalization(model, "all", num_components)
    received = [e.num_components for e in new.layers if hasattr(e, "gate")]
    assert received == expected


def test_rows_add_up_exactly_and_differ_by_the_noise():
    old = network()
    for noise in (0.0, 0.1, 0.5):
        new = convert_normalization(old, num_components=8, noise=noise)
        layer, norm = new.get_layer("spatial_norm"), old.get_layer("spatial_norm")
        for table, row in ((layer.gamma, norm.gamma), (layer.beta, norm.beta)):
            rows, row = ops.convert_to_numpy(table), ops.convert_to_numpy(row)
            np.testing.assert_allclose(rows.sum(axis=0) / 2, row, rtol=1e-6)
            spread = (rows / (row / 4) - 1).std() * (8 / 7) ** 0.5
            assert spread == pytest.approx(noise, rel=0.5, abs=1e-6)
        assert not np.any(ops.convert_to_numpy(layer.gate.kernel))
        assert not np.any(ops.convert_to_numpy(layer.gate.bias))


def test_rows_differ_if_gamma_is_zero():
    """The last norm of a residual block starts like this."""
    model = network(gamma_initializer="zeros")
    model.get_layer("spatial_norm").gamma.assign(np.zeros(8))
    layer = convert_normalization(model).get_layer("spatial_norm")
    assert ops.convert_to_numpy(layer.gamma).std(axis=0).min() > 0
    assert np.abs(ops.convert_to_numpy(layer.gamma).sum(axis=0)).max() < 1e-6


def test_nested_and_shared_models_are_converted_once(images):
    inner = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(4, 3),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(name="deep"),
            layers.GlobalAveragePooling2D(),
        ],
        name="inner",
    )
    inner.get_layer("deep").trainable = False
    left, right = keras.Input((12, 12, 3)), keras.Input((12, 12, 3))
    outputs = layers.Subtract()([inner(left), inner(right, training=False)])
    old = norms_as_after_training(keras.Model([left, right], outputs))
    weights = [ops.convert_to_numpy(w) for w in old.weights]
    report = []
    new = convert_normalization(old, report=report)
    assert [(row.layer, row.reason) for row in report] == [
        ("inner/deep", "shared between 2 places")
    ]
    deep = new.get_layer("inner").get_layer("deep")
    assert isinstance(deep, AttentiveNormalization) and not deep.trainable
    x = [images, images[::-1].copy()]
    assert_same_function(old, new, x)
    deep.gamma.assign(np.zeros(deep.gamma.shape))
    for before, after in zip(weights, old.weights, strict=True):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(after))


def test_norm_shared_between_different_places_is_rejected():
    shared = layers.BatchNormalization(name="shared")
    inputs = keras.Input((12, 12, 4))
    x = shared(layers.Conv2D(4, 3)(layers.Conv2D(4, 3)(inputs)))
    model = keras.Model(inputs, shared(layers.Conv2D(4, 1)(x)))
    with pytest.raises(ValueError, match=r"shared \(shared between 2 places, of which"):
        convert_normalization(model)
    new = convert_normalization(model, "all")
    x = np.ones((2, 12, 12, 4), "float32")
    assert_same_function(model, new, x)


class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.norm = layers.Conv2D(4, 3), layers.BatchNormalization(name="in")

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(self.conv.compute_output_shape(shape))

    def call(self, x, training=None):
        return self.norm(self.conv(x), training=training)

    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)


class OwnNorm(layers.BatchNormalization):
    pass


def test_norms_that_cannot_be_converted_raise():
    def model(layer):
        sequence = [keras.Input((12, 12, 3)), layers.Conv2D(4, 3), layers.Conv2D(4, 3)]
        return keras.Sequential([*sequence, layer])

    for layer, words in (
        (Block(name="block"), r"block/in \(a norm inside a custom layer, Block"),
        (OwnNorm(name="own"), r"own \(OwnNorm is a subclass with its own code"),
        (layers.LayerNormalization(axis=(1, 2, 3), name="all"), "over the channels"),
        (layers.BatchNormalization(axis=2, name="rows"), "rows .*`axis` must be"),
        (layers.RMSNormalization(name="rms"), "rms .*does not subtract the mean"),
    ):
        report = []
        with pytest.raises(ValueError, match=words):
            convert_normalization(model(layer), report=report)
        assert [row.action for row in report] == ["refused"]
    easy = layers.BatchNormalization(name="easy")
    two = keras.Sequential([keras.Input((12, 12, 3)), easy, Block(name="block")])
    report = []
    new = convert_normalization(two, where="^easy$", report=report)
    assert [row.action for row in report] == ["converted", "kept"]
    assert_same_function(two, new, np.ones((2, 12, 12, 3), "float32"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"where": "spacial"}, "must select a normalization layer of 'network'"),
        ({"where": "("}, "must be a regular expression"),
        ({"num_components": 0}, "`num_components` must be >= 1"),
        ({"num_components": {4: 3}}, "a K for every stride.*stride 2"),
        ({"noise": -1.0}, "`noise` must be >= 0"),
        ({"noise": 10**400}, "`noise` must be >= 0 and at most 10"),
    ],
)
def test_values_out_of_range_raise(arguments, words):
    with pytest.raises(ValueError, match=words):
        convert_normalization(network(), **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"where": 3}, {"num_components": 2.5}, {"noise": "little"}, {"report": True}],
)
def test_wrong_types_raise(arguments):
    with pytest.raises(TypeError, match="Received"):
        convert_normalization(network(), **arguments)


class Unserializable(layers.Layer):
    def __init__(self, factor):
        super().__init__(name="doubled")
        self.factor = factor

    def call(self, x):
        return self.factor * x


def test_layers_that_cannot_be_recreated_raise():
    old = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization()])
    old.add(Unserializable(2.0))
    with pytest.raises(ValueError, match="'doubled' of class Unserializable"):
        convert_normalization(old, "all")


def test_models_that_are_not_graphs_raise():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.block = Block()

        def call(self, x):
            return self.block(x)

    model = Subclassed()
    model(np.ones((1, 8, 8, 3), "float32"))
    with pytest.raises(ValueError, match="'mine' of class Subclassed"):
        convert_normalization(model)
    with pytest.raises(ValueError, match="Sequential model that is not built"):
        convert_normalization(keras.Sequential([layers.BatchNormalization()]))
    with pytest.raises(ValueError, match="Received: 3"):
        convert_normalization(3)


def test_trainable_dtype_and_state_are_kept(images):
    old = network(dtype="mixed_bfloat16")
    old.get_layer("spatial_norm").trainable = False
    old.get_layer("stem").trainable = False
    adapted = layers.Normalization()
    adapted.adapt(images)
    old = keras.Sequential([keras.Input((12, 12, 3)), adapted, old], name="both")
    new = convert_normalization(old)
    assert new.name == "both"
    old_layers, new_layers = (m.get_layer("network").layers for m in (old, new))
    for a, b in zip(old_layers[1:], new_layers[1:], strict=True):
        assert (a.name, a.trainable, a.dtype_policy) == (
            b.name,
            b.trainable,
            b.dtype_policy,
        )
    a, b = (backends.apply(model, images) for model in (old, new))
    np.testing.assert_allclose(a, b, atol=0.05 * a.std())  # bfloat16


def test_converted_models_can_be_saved_and_loaded(tmp_path, images):
    new = convert_normalization(network())
    new.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        backends.apply(new, images), backends.apply(again, images)
    )


def test_sequence_models_are_converted():
    model = keras.Sequential(
        [
            keras.Input((20, 3)),
            layers.Conv1D(4, 3),
            layers.Conv1D(4, 3, strides=2),
            layers.BatchNormalization(),
        ]
    )
    new = convert_normalization(norms_as_after_training(model))
    x = np.random.default_rng(0).normal(size=(2, 20, 3)).astype("float32")
    assert_same_function(model, new, x)


def own_loss(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


@pytest.mark.parametrize(
    "norm", [layers.BatchNormalization, an_keras.BatchNormalization]
)
@pytest.mark.parametrize(
    "arguments", [{"training": True}, {"training": False}, {"mask": True}], ids=str
)
def test_call_arguments_are_kept(norm, arguments, images):
    inputs = keras.Input(images.shape[1:])
    if "mask" in arguments:
        arguments = {"mask": ops.max(inputs, axis=-1) > 0.5}
    x = layers.Conv2D(4, 3, padding="same")(layers.Dropout(0.0)(inputs, training=True))
    x = layers.Conv2D(4, 3, padding="same")(x)
    model = keras.Model(inputs, norm(momentum=0.5, name="norm")(x, **arguments))
    model(images, training=True)
    converted = convert_normalization(model, num_components=3)
    assert type(converted.get_layer("norm")) is AttentiveNormalization
    for how in ({}, {"training": False}, {"training": True}):
        a, b = (backends.apply(each, images, **how) for each in (model, converted))
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_unregistered_losses_do_not_prevent_conversion():
    old = network()
    old.compile("sgd", own_loss)
    new = convert_normalization(old)
    assert old.compiled and not new.compiled


def test_trainable_state_is_kept_for_every_layer_and_weight():
    old = network()
    old.trainable = False
    old.get_layer("spatial_norm").trainable = True
    old.get_layer("point").trainable = True
    old.get_layer("point").kernel.trainable = False
    old.get_layer("spatial_norm").gamma.trainable = False
    new = convert_normalization(old, "all")
    assert not new.get_layer("spatial_norm").gamma.trainable
    assert new.get_layer("spatial_norm").beta.trainable
    states = [[e.trainable for e in m.layers] for m in (old, new)]
    assert states[0] == states[1]
    assert not new.get_layer("point").kernel.trainable
    assert new.get_layer("point").bias.trainable


@pytest.mark.parametrize(
    ("norm", "words"),
    [
        (layers.BatchNormalization, None),
        (layers.LayerNormalization, None),
        (layers.GroupNormalization, "has a mask, which group normalization ignores"),
    ],
)
def test_masks_are_respected_or_rejected(norm, words):
    options = {"groups": 2} if norm is layers.GroupNormalization else {}
    model = keras.Sequential(
        [
            keras.Input((7,)),
            layers.Embedding(10, 4, mask_zero=True),
            norm(name="norm", **options),
        ]
    )
    norms_as_after_training(model)
    if words:
        with pytest.raises(ValueError, match=words):
            convert_normalization(model, "all")
        return
    x = np.array([[1, 2, 3, 0, 0, 0, 0], [4, 5, 6, 7, 8, 9, 0]])
    for training in (False, True):
        assert_same_function(model, convert_normalization(model, "all"), x, training)


def test_weights_shared_between_layers_are_rejected():
    class Transposed(layers.Layer):
        def __init__(self, dense, **kwargs):
            super().__init__(**kwargs)
            self.dense = dense

        def call(self, x):
            return x @ ops.transpose(self.dense.kernel)

        def get_config(self):
            dense = keras.saving.serialize_keras_object(self.dense)
            return {**super().get_config(), "dense": dense}

        @classmethod
        def from_config(cls, config):
            config["dense"] = keras.saving.deserialize_keras_object(config["dense"])
            return cls(**config)

    dense = layers.Dense(4)
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(dense(inputs))
    model = keras.Model(inputs, Transposed(dense)(x))
    with pytest.raises(ValueError, match="share individual weights"):
        convert_normalization(model, "all")


def test_optional_inputs_stay_optional():
    first, second = keras.Input((4,)), keras.Input((4,), optional=True)
    x = layers.BatchNormalization()(layers.Dense(4)(first))
    new = convert_normalization(keras.Model([first, second], x), "all")
    assert new.inputs[1]._keras_history.operation.optional


def test_double_precision_is_preserved(images):
    old = network(dtype="float64")
    norm = old.get_layer("spatial_norm")
    layer = convert_normalization(old).get_layer("spatial_norm")
    rows = ops.convert_to_numpy(layer.gamma)
    np.testing.assert_allclose(
        rows.sum(axis=0) / 2, ops.convert_to_numpy(norm.gamma), rtol=1e-15
    )


def attention_after_training(noise, images):
    """Returns the range of attention over components and over images after 50 steps."""
    keras.utils.set_random_seed(0)
    model = convert_normalization(network(), noise=noise)
    model.compile(keras.optimizers.Adam(0.03), "mse")
    rng = np.random.default_rng(2)
    x = np.concatenate([images * scale for scale in (0.5, 1, 2, 3)])
    model.fit(x, rng.normal(size=(16, 3)), epochs=50, batch_size=16, verbose=0)
    attention = an_keras.collect_attention(model, x)
    values = ops.convert_to_numpy(next(iter(attention.values())))
    return np.ptp(values, axis=1).max(), np.ptp(values, axis=0).max()


@pytest.mark.slow
def test_noise_separates_the_components(images):
    without, _ = attention_after_training(0.0, images)
    with_noise, between_images = attention_after_training(0.1, images)
    assert without < 1e-4  # rounding errors, which grow in training
    assert with_noise > 1e-2
    assert between_images > 1e-2


def test_norm_with_an_unsupported_epsilon_raises():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.BatchNormalization(epsilon=0.0, name="odd")]
    )
    with pytest.raises(ValueError, match="odd cannot be converted: `epsilon` must"):
        convert_normalization(model, where="all")
