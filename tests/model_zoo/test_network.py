"""Arguments, names and initialization of the published networks."""

import functools
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import model_zoo
from an_keras import AttentiveNormalization
from model_zoo.blocks import GroupedConv2D

SMALL = {"input_shape": (64, 64, 3)}
LAYER_NAMES = pathlib.Path(__file__).with_name("layer_names.json")


@functools.lru_cache(maxsize=8)
def built(name, **options):
    """Returns a network of the published initialization that tests must not change."""
    keras.utils.set_random_seed(0)
    return model_zoo.create_model(name, **options, **SMALL)


@pytest.mark.parametrize("name", json.loads(LAYER_NAMES.read_text()))
def test_names_of_layers_with_weights_are_pinned(name):
    names = [layer.name for layer in built(name).layers if layer.weights]
    assert names == json.loads(LAYER_NAMES.read_text())[name]


def attentive(model):
    """Returns the names of the AN layers without stage and block."""
    return {
        layer.name.rsplit("_", 1)[-1]
        if layer.name.startswith("stage") and "shortcut" not in layer.name
        else layer.name.split("_", 2 if "shortcut" in layer.name else 0)[-1]
        for layer in model.layers
        if isinstance(layer, AttentiveNormalization)
    }


@pytest.mark.parametrize(
    ("name", "position", "expected"),
    [
        ("resnet18_an", None, {"norm1"}),
        ("resnet50_an", None, {"norm2"}),
        ("resnet50_an", "norm3", {"norm3"}),
        ("resnet50_an", "norm123", {"norm1", "norm2", "norm3"}),
        (
            "resnet50_an",
            "all",
            {"norm1", "norm2", "norm3", "stem_norm", "shortcut_norm"},
        ),
        (
            "resnet50d_an",
            "all",
            {
                *("norm1", "norm2", "norm3", "shortcut_norm"),
                *("stem_norm1", "stem_norm2", "stem_norm3"),
            },
        ),
        ("mobilenetv2_an", None, {"norm2"}),
        ("mobilenetv2_an", "norm13", {"norm1", "norm3"}),
        (
            "mobilenetv2_an",
            "all",
            {"norm1", "norm2", "norm3", "stem_norm", "last_norm"},
        ),
        ("densenet121_an", None, {"norm2"}),
        ("densenet121_an", "norm12", {"norm1", "norm2"}),
        (
            "densenet121_an",
            "all",
            {
                *("norm1", "norm2", "stem_norm", "last_norm"),
                *(f"transition{i}_norm" for i in (1, 2, 3)),
            },
        ),
        ("resnet50_bn", "all", set()),
    ],
)
def test_position_selects_the_norms(name, position, expected):
    options = {"position": position} if position else {}
    assert attentive(built(name, **options)) == expected


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("resnet50_an", [10, 10, 20, 20]),
        ("densenet121_an", [10, 10, 20, 20]),
        ("mobilenetv2_an", [5, 5, 5, 5, 10, 10, 10]),
    ],
)
def test_components_match_the_paper_in_each_stage(name, components):
    model = built(name)
    layers = (f"stage{i + 1}_block1_norm2" for i in range(len(components)))
    assert [model.get_layer(name).num_components for name in layers] == components


def test_group_normalization_is_used_everywhere():
    model = model_zoo.create_model(
        "mobilenetv2_an", normalization="group", width_multiplier=0.75, **SMALL
    )
    kinds = {type(layer).__name__ for layer in model.layers if "norm" in layer.name}
    assert kinds == {"AttentiveNormalization", "GroupNormalization"}
    assert model.get_layer("stem_norm").groups == 8  # gcd(32, 24)
    assert np.isfinite(model(np.ones((2, 64, 64, 3)))).all()


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_last_norm_of_a_residual_block_starts_at_0(normalization):
    options = {"normalization": normalization, **SMALL}
    plain = model_zoo.create_model("resnet50_bn", **options)
    assert not np.any(plain.get_layer("stage3_block2_norm3").gamma)
    assert np.all(plain.get_layer("stage3_block2_norm2").gamma)
    for name, position, last in (
        ("resnet50_an", "norm3", "norm3"),
        ("resnet34_an", "norm2", "norm2"),
    ):
        model = model_zoo.create_model(name, position=position, **options)
        layer = model.get_layer(f"stage3_block2_{last}")
        assert not np.any(layer.gamma) and not np.any(layer.beta)
        assert np.any(layer.gate.kernel)


def test_other_families_do_not_start_at_0():
    for name, layer in (
        ("resnet20_bn", "stage1_block1_norm2"),
        ("mobilenetv2_bn", "stage1_block1_norm3"),
        ("densenet121_bn", "stage1_block1_norm2"),
    ):
        assert np.all(built(name).get_layer(layer).gamma)


@pytest.mark.parametrize(
    ("name", "layer", "weight", "std"),
    [
        ("resnet50_an", "stem_conv", 0, (2 / (49 * 64)) ** 0.5),
        ("resnet50_an", "stage4_block1_conv2", 0, (2 / (9 * 512)) ** 0.5),
        ("resnext50_32x4d_an", "stage4_block1_conv2", 0, (2 / (9 * 1024)) ** 0.5),
        ("mobilenetv2_an", "stage6_block2_conv2", 0, (2 / (9 * 960)) ** 0.5),
        ("mobilenetv2_an", "last_conv", 0, (2 / 1280) ** 0.5),
        ("mobilenetv2_an", "predictions", 0, 0.01),
        ("densenet121_an", "stage4_block1_conv2", 0, (2 / (9 * 32)) ** 0.5),
        ("resnet50_an", "predictions", 0, (2048 * 3) ** -0.5),
        ("densenet121_an", "predictions", 1, (1024 * 3) ** -0.5),
        ("resnet50_an", "stage4_block1_norm2", 0, 0.1),  # gamma
        ("resnet50_an", "stage4_block1_norm2", 1, 0.1),  # beta
        ("resnet50_an", "stage4_block1_norm2", 2, (2 / 20) ** 0.5),  # gate kernel
    ],
)
def test_initial_weights_have_the_published_spread(name, layer, weight, std):
    model = built(name)
    values = ops.convert_to_numpy(model.get_layer(layer).trainable_weights[weight])
    assert values.std() == pytest.approx(std, rel=0.1)


@pytest.mark.parametrize(
    ("multiplier", "rounded", "widths"),
    [
        (1.0, False, (32, 16, 24, 32, 64, 96, 160, 320, 1280)),
        (0.35, False, (11, 5, 8, 11, 22, 33, 56, 112, 1280)),
        (0.5, True, (16, 8, 16, 16, 32, 48, 80, 160, 1280)),
        (1.4, True, (48, 24, 32, 48, 88, 136, 224, 448, 1792)),
    ],
)
def test_width_multiplier_truncates_or_rounds(multiplier, rounded, widths):
    model = model_zoo.create_model(
        "mobilenetv2_an", width_multiplier=multiplier, round_channels=rounded, **SMALL
    )
    layers = ["stem_conv", *(f"stage{i}_block1_conv3" for i in range(1, 8))]
    layers.append("last_conv")
    assert tuple(model.get_layer(name).filters for name in layers) == widths


def test_only_mobilenet_has_dropout_by_default():
    rates = {
        name: [
            layer.rate
            for layer in built(name).layers
            if isinstance(layer, keras.layers.Dropout)
        ]
        for name in ("mobilenetv2_an", "resnet50_an", "densenet121_an")
    }
    assert rates == {"mobilenetv2_an": [0.2], "resnet50_an": [], "densenet121_an": []}


def test_dropout_is_an_argument_of_every_network():
    for name in ("resnet8_an", "densenet121_bn"):
        model = model_zoo.create_model(name, dropout=0.3, input_shape=(32, 32, 3))
        assert model.get_layer("dropout").rate == 0.3
    model = model_zoo.create_model("mobilenetv2_an", dropout=None, **SMALL)
    assert model.get_layer("dropout").rate == 0.2
    model = model_zoo.create_model("mobilenetv2_an", dropout=0, **SMALL)
    assert "dropout" not in [layer.name for layer in model.layers]


def test_norm_options_apply_to_every_layer_and_tuples_by_stage():
    model = model_zoo.create_model(
        "resnet18_an",
        num_components=4,
        norm_options={"descriptor": "mean", "gate_hidden_units": (4, 4, 8, 8)},
        **SMALL,
    )
    layers = [model.get_layer(f"stage{i}_block1_norm1") for i in (1, 2, 3, 4)]
    assert {layer.descriptor for layer in layers} == {"mean"}
    assert [layer.gate_hidden_units for layer in layers] == [4, 4, 8, 8]
    assert {layer.num_components for layer in layers} == {4}


def test_moving_variances_include_the_initial_gain():
    options = {"norm_options": {"num_components": (4, 4, 8, 8)}, **SMALL}
    for arguments, expected in ((options, {4.0, 16.0}), (SMALL, {25.0, 100.0})):
        model = model_zoo.create_model("resnet18_an", **arguments)
        layers = (model.get_layer(f"stage{i}_block1_norm1") for i in (1, 2, 3, 4))
        assert {float(layer.moving_variance[0]) for layer in layers} == expected


def test_synchronized_applies_to_every_norm():
    model = model_zoo.create_model("resnet50_an", synchronized=True, **SMALL)
    assert all(layer.synchronized for layer in model.layers if "norm" in layer.name)


def test_images_may_have_any_size_and_number_of_channels():
    model = model_zoo.create_model(
        "mobilenetv2_an", input_shape=(None, None, 1), classes=3
    )
    for size in ((32, 32), (47, 33)):
        assert model(np.ones((2, *size, 1))).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"position": "norm4"}, ValueError, "'norm13', 'norm23', 'norm123' or 'all'"),
        ({"position": "stem"}, ValueError, "Received: position='stem'"),
        ({"num_components": (10, 20)}, ValueError, "each of the 7 stages"),
        ({"norm_options": {"groups": (1, 2)}}, ValueError, "Received: groups=\\(1, 2"),
        ({"num_components": 2.5}, TypeError, r"Received: num_components=\(2.5"),
        ({"pooling": "mean"}, ValueError, "Received: pooling='mean'"),
        ({"classes": True}, ValueError, "Received: classes=True"),
        ({"norm_options": {"gruops": 1}}, ValueError, "gruops"),
        ({"norm_options": "group"}, TypeError, "must be a dictionary.*'group'"),
        ({"width_multiplier": 0}, ValueError, "Received: width_multiplier=0"),
        ({"width_multiplier": 1e300}, ValueError, "at most 100"),
        ({"width_multiplier": "1"}, TypeError, "must be a number"),
        ({"dropout": 1.5}, ValueError, r"`dropout` must be in .0, 1.. Received"),
        ({"dropout": "0.2"}, TypeError, "`dropout` must be a number"),
        ({"include_top": "no"}, TypeError, "`include_top` must be a boolean"),
        ({"input_shape": 32}, ValueError, "height, width, channels.*input_shape=32"),
        ({"input_shape": ("a", 32, 3)}, ValueError, "Received: input_shape=.'a'"),
        ({"input_shape": (32, 32, 0)}, ValueError, "and static channels"),
        ({"input_shape": (31, 64, 3)}, ValueError, "at least 32 pixels"),
        (
            {"weights": "imagenet"},
            ValueError,
            "a tag of `model_info.name..weights`. Received",
        ),
        (
            {"depth": 3},
            TypeError,
            "does not have the arguments depth. Expected some of cl",
        ),
    ],
)
def test_invalid_arguments_are_reported(arguments, error, words):
    with pytest.raises(error, match=words):
        model_zoo.create_model("mobilenetv2_an", **arguments)


def test_builder_docstring_names_the_lineage():
    text = model_zoo.model_info("resnet50_an").build.__doc__.splitlines()[0]
    assert "He et al. 2016" in text and "keras.applications.ResNet50" in text


class TestGroupedConvolution:
    """`GroupedConv2D` is Keras' layer with TensorFlow's own operation."""

    @pytest.fixture
    def layers(self):
        options = {"groups": 4, "padding": "same", "use_bias": False}
        ours = GroupedConv2D(16, 3, **options)
        keras_own = keras.layers.Conv2D(16, 3, **options)
        for layer in (ours, keras_own):
            layer.build((None, 9, 9, 8))
        keras_own.set_weights(ours.get_weights())
        return ours, keras_own

    def test_outputs_and_gradients_match_keras(self, layers):
        x = np.random.default_rng(0).normal(size=(2, 9, 9, 8)).astype("float32")
        results = []
        for layer in layers:
            with tf.GradientTape() as tape:
                y = layer(x)
                loss = tf.reduce_sum(y**2)
            results.append((y, tape.gradient(loss, layer.kernel.value)))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
    def test_gradients_exist_in_every_dtype(self, dtype):
        options = {"groups": 4, "use_bias": False}
        layer = GroupedConv2D(16, 3, dtype=dtype, **options)
        plain = keras.layers.Conv2D(16, 3, **options)
        for each in (layer, plain):
            each.build((None, 9, 9, 8))
        plain.kernel.assign(tf.cast(layer.kernel.value, "float32"))
        x = tf.cast(np.random.default_rng(0).normal(size=(2, 9, 9, 8)), dtype)
        gradients = []
        for each, inputs in ((layer, x), (plain, tf.cast(x, "float32"))):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                loss = tf.reduce_sum(each(inputs) ** 2)
            gradients.append(tape.gradient(loss, [inputs, each.kernel.value]))
        for a, b in zip(*gradients, strict=True):
            error = np.abs(tf.cast(a, "float32") - b).max() / np.abs(b).max()
            assert error < {"bfloat16": 0.03, "float16": 4e-3, "float64": 1e-5}[dtype]

    def test_dilation_matches_keras(self):
        options = {"groups": 2, "dilation_rate": 2}
        ours = GroupedConv2D(4, 3, **options)
        plain = keras.layers.Conv2D(4, 3, **options)
        x = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype("float32")
        for layer in (ours, plain):
            layer.build(x.shape)
        plain.set_weights(ours.get_weights())
        np.testing.assert_allclose(ours(x), plain(x), rtol=1e-4, atol=1e-5)

    def test_xla_compilation_is_not_required(self, layers):
        def operations(layer):
            spec = tf.TensorSpec((None, 9, 9, 8))
            graph = tf.function(layer).get_concrete_function(spec).graph
            return str(graph.as_graph_def())

        ours, keras_own = layers
        assert "_XlaMustCompile" in operations(keras_own)
        assert "_XlaMustCompile" not in operations(ours)

    def test_saved_model_matches_keras(self, layers, tmp_path):
        inputs = keras.Input((9, 9, 8))
        ours, keras_own = (keras.Model(inputs, layer(inputs)) for layer in layers)
        ours.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert isinstance(again.layers[1], GroupedConv2D)
        x = np.ones((1, 9, 9, 8), "float32")
        np.testing.assert_allclose(again(x), keras_own(x), rtol=1e-5)
