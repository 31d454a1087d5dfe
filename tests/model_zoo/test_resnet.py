"""Residual networks for small images."""

import keras
import numpy as np
import pytest
from keras import ops

import model_zoo
from an_keras import AttentiveNormalization, BatchNormalization

DEPTHS = [8, 20, *(pytest.param(n, marks=pytest.mark.long) for n in (32, 44, 56))]


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


# He et al. 2016, table 6, prints 0.27, 0.46, 0.66, 0.85 million.
@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)],
)
def test_parameter_count_matches_the_paper(depth, parameters):
    model = model_zoo.create_model(f"resnet{depth}_bn")
    assert trainable_parameters(model) == parameters


@pytest.mark.parametrize("depth", DEPTHS)
def test_attention_adds_its_tables_and_gates_to_the_first_norms(depth):
    blocks = (depth - 2) // 6
    extra = sum(
        blocks * (3 * k * c + 2 * k - 2 * c) for c, k in ((16, 10), (32, 10), (64, 20))
    )
    an, bn = (model_zoo.create_model(f"resnet{depth}_{kind}") for kind in ("an", "bn"))
    assert trainable_parameters(an) - trainable_parameters(bn) == extra


def test_layer_names_are_pinned():
    names = [layer.name for layer in model_zoo.create_model("resnet20_an").layers[1:]]
    assert names[:11] == [
        "stem_conv",
        "stem_norm",
        "stem_relu",
        "stage1_block1_conv1",
        "stage1_block1_norm1",
        "stage1_block1_relu1",
        "stage1_block1_conv2",
        "stage1_block1_norm2",
        "stage1_block1_add",
        "stage1_block1_relu2",
        "stage1_block2_conv1",
    ]
    assert [name for name in names if name.startswith("stage3_block1")] == [
        "stage3_block1_conv1_pad",
        "stage3_block1_conv1",
        "stage3_block1_norm1",
        "stage3_block1_relu1",
        "stage3_block1_conv2",
        "stage3_block1_shortcut_subsample",
        "stage3_block1_norm2",
        "stage3_block1_shortcut_pad",
        "stage3_block1_add",
        "stage3_block1_relu2",
    ]
    assert names[-2:] == ["avg_pool", "predictions"]


@pytest.mark.parametrize(
    ("position", "blocks_of_resnet20"),
    [("norm1", {"norm1"}), ("norm2", {"norm2"}), ("norm12", {"norm1", "norm2"})],
)
def test_position_selects_the_norms(position, blocks_of_resnet20):
    model = model_zoo.create_model("resnet20_an", position=position)
    attentive = [
        layer.name
        for layer in model.layers
        if isinstance(layer, AttentiveNormalization)
    ]
    assert {name.rsplit("_", 1)[1] for name in attentive} == blocks_of_resnet20
    assert len(attentive) == 9 * len(blocks_of_resnet20)


def test_all_positions_leave_no_plain_norm():
    model = model_zoo.create_model("resnet20_an", position="all")
    assert not any(isinstance(layer, BatchNormalization) for layer in model.layers)


def test_components_follow_the_stages():
    model = model_zoo.create_model("resnet20_an")
    components = [
        model.get_layer(f"stage{stage}_block1_norm1").num_components
        for stage in (1, 2, 3)
    ]
    assert components == [10, 10, 20]


def test_option_a_shortcut_subsamples_and_pads_with_zeros():
    model = model_zoo.create_model("resnet20_bn", input_shape=(9, 9, 3))
    padded = model.get_layer("stage2_block1_shortcut_pad")
    before = model.get_layer("stage1_block3_relu2")
    outputs = keras.Model(model.input, [before.output, padded.output])
    x, y = (
        ops.convert_to_numpy(t)
        for t in outputs(np.random.default_rng(0).normal(size=(2, 9, 9, 3)))
    )
    np.testing.assert_array_equal(y[..., 8:24], x[:, ::2, ::2])
    assert not y[..., :8].any() and not y[..., 24:].any()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", ["an", "bn"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (11, 13, 4)])
def test_any_size_from_8x8_channels_and_classes_work(depth, kind, shape):
    model = model_zoo.create_model(
        f"resnet{depth}_{kind}", input_shape=shape, classes=7
    )
    x = np.random.default_rng(0).normal(size=(2, *shape))
    y = ops.convert_to_numpy(model(x))
    assert y.shape == (2, 7)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet20_an", "resnet20_bn"])
def test_saved_model_gives_the_same_outputs(name, tmp_path):
    model = model_zoo.create_model(name, input_shape=(16, 16, 3))
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))


def test_weights_load_only_into_the_same_network(tmp_path):
    path = tmp_path / "an.weights.h5"
    one = model_zoo.create_model("resnet20_an", input_shape=(8, 8, 1))
    one.save_weights(path)
    other = model_zoo.create_model("resnet20_an", input_shape=(8, 8, 1), weights=path)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="weights of a network other than resnet32_an"):
        model_zoo.create_model("resnet32_an", input_shape=(8, 8, 1), weights=path)


def test_pooling_and_features_without_the_top():
    shape = (16, 16, 3)
    for pooling, expected in (
        (None, (None, 4, 4, 64)),
        ("avg", (None, 64)),
        ("max", (None, 64)),
    ):
        model = model_zoo.create_model(
            "resnet20_an", include_top=False, pooling=pooling, input_shape=shape
        )
        assert model.output_shape == expected


def test_input_tensor_may_come_from_other_layers():
    inputs = keras.Input((16, 16, 3))
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    model = model_zoo.create_model("resnet20_an", input_tensor=scaled)
    plain = model_zoo.create_model("resnet20_an", input_shape=(16, 16, 3))
    plain.set_weights(model.get_weights())
    x = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(model(x), plain(x / 255), atol=1e-6)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        model_zoo.create_model("resnet20_an", input_tensor=keras.Input((4, 4, 3)))


def test_group_normalization_builds_and_runs():
    model = model_zoo.create_model(
        "resnet20_an", input_shape=(8, 8, 3), normalization="group"
    )
    layer = model.get_layer("stage2_block1_norm1")
    assert (layer.normalization, layer.groups) == ("group", 32)
    assert np.isfinite(model(np.ones((2, 8, 8, 3)))).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"position": "norm3"}, "`position` must be one of 'norm1', 'norm2', 'norm12'"),
        ({"position": "stem"}, "Received: position='stem'"),
        ({"num_components": 0}, "`num_components` must be >= 1"),
        ({"num_components": (10, 20)}, "one int for each of the 3 stages"),
        ({"normalization": "layer"}, "`normalization` must be one of"),
        ({"input_shape": (7, 32, 3)}, "at least 8 pixels"),
        ({"input_shape": (32, 32)}, "must be \\(height, width, channels\\)"),
        ({"input_shape": (32, 32, None)}, "static channels"),
        ({"classes": 0}, "`classes` must be an int >= 1"),
        ({"include_top": False, "pooling": "mean"}, "`pooling` must be"),
        ({"weights": "imagenet"}, "path of a .weights.h5 file"),
    ],
)
def test_invalid_arguments_are_reported(arguments, words):
    with pytest.raises(ValueError, match=words):
        model_zoo.create_model("resnet20_an", **arguments)
