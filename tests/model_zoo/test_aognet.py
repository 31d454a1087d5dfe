"""AOGNet: channels, places of AN, dropout and maps of its blocks."""

import keras
import numpy as np
import pytest
from keras import ops

import model_zoo
from an_keras import AttentiveNormalization
from model_zoo.aognet import SPECS

SMALL = {"input_shape": (64, 64, 3)}
# Nodes that span all units, from the specification's tables, by symmetry removal.
FULL_NODES = {2: (0, 1, 2), 4: (0, 1, 2, 3)}


@pytest.fixture(scope="module")
def small():
    return model_zoo.create_model("aognet_12m_an", **SMALL)


def attentive(model):
    return {
        layer.name
        for layer in model.layers
        if isinstance(layer, AttentiveNormalization)
    }


def blocks(name):
    """Yields (stage, prefix of the names of a block's layers)."""
    for stage, depth in enumerate(SPECS[name].depths):
        for block in range(depth):
            yield stage, f"stage{stage + 1}_block{block + 1}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aognet_12m", [[80, 128], [192, 256], [384, 512], [824]]),
        ("aognet_40m", [[140, 224], [336, 448], [596, 744, 896], [1400]]),
        ("aognet_cifar", [[64], [128], [256]]),
    ],
)
def test_blocks_widen_in_equal_steps_of_whole_units(name, expected):
    spec = SPECS[name]
    stages = range(len(spec.depths))
    assert [spec.block_widths(stage) for stage in stages] == expected


def test_attention_is_in_the_second_norm_of_nodes_that_span_all_units(small):
    units = SPECS["aognet_12m"].units
    assert attentive(small) == {
        f"{block}_node{number}_norm2"
        for stage, block in blocks("aognet_12m")
        for number in FULL_NODES[units[stage]]
    }


def test_position_selects_norms_of_full_nodes():
    model = model_zoo.create_model("aognet_12m_an", position="norm13", **SMALL)
    assert {name.rsplit("_", 1)[1] for name in attentive(model)} == {"norm1", "norm3"}
    numbers = {int(name.split("_node")[1].split("_")[0]) for name in attentive(model)}
    assert numbers == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="'norm123' or 'all' in this network"):
        model_zoo.create_model("aognet_12m_an", position="norm4")


def test_all_means_every_norm():
    model = model_zoo.create_model("aognet_cifar_an", position="all")
    norms = {layer.name for layer in model.layers if "norm" in layer.name}
    assert attentive(model) == norms


def test_every_node_of_the_last_two_stages_drops_channels(small):
    rates = {
        layer.name: layer.rate
        for layer in small.layers
        if isinstance(layer, keras.layers.SpatialDropout2D) and layer.rate
    }
    assert set(rates.values()) == {0.1}
    nodes = {
        layer.name.removesuffix("_add")
        for layer in small.layers
        if layer.name.endswith("_add")
    }
    assert {name.removesuffix("_dropout") for name in rates} == {
        node for node in nodes if node.startswith(("stage3", "stage4"))
    }


@pytest.mark.parametrize(
    ("rates", "expected"), [(0.2, {0.2}), ((0, 0.3, 0), {0, 0.3}), (0, {0})]
)
def test_channel_dropout_is_an_argument(rates, expected):
    model = model_zoo.create_model("aognet_cifar_an", channel_dropout=rates)
    dropouts = (keras.layers.SpatialDropout2D,)
    found = {layer.rate for layer in model.layers if isinstance(layer, dropouts)}
    assert found == expected


def test_weights_fit_networks_with_any_channel_dropout(tmp_path):
    options = {"input_shape": (8, 8, 3)}
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    file = tmp_path / "aognet.weights.h5"
    saved = model_zoo.create_model("aognet_cifar_an", channel_dropout=0.1, **options)
    saved.save_weights(file)
    for rates in (0, (0, 0.1, 0.2)):
        options["channel_dropout"] = rates
        model = model_zoo.create_model("aognet_cifar_an", weights=file, **options)
        np.testing.assert_array_equal(model(images), saved(images))


@pytest.mark.parametrize(
    ("rates", "error", "words"),
    [
        (
            (0.1, 0.1),
            ValueError,
            "each of the 3 stages. Received: channel_dropout=.0.1",
        ),
        (1.5, ValueError, "`channel_dropout` must be in"),
        ("0.1", TypeError, "`channel_dropout` must be a number"),
    ],
)
def test_invalid_channel_dropout_is_reported(rates, error, words):
    with pytest.raises(error, match=words):
        model_zoo.create_model("aognet_cifar_an", channel_dropout=rates)


def test_networks_for_small_images_have_strides_in_terminal_nodes():
    model = model_zoo.create_model("aognet_cifar_bn")
    sizes = [
        model.get_layer(f"stage{stage}_block1_relu").output.shape[1:]
        for stage in (1, 2, 3)
    ]
    assert sizes == [(32, 32, 64), (16, 16, 128), (8, 8, 256)]
    strided = [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)
    ]
    assert len(strided) == 2 * 10  # intervals of 4 units
    dropouts = (keras.layers.SpatialDropout2D,)
    assert {layer.rate for layer in model.layers if isinstance(layer, dropouts)} == {0}


def test_maps_for_detection_end_the_stages(small):
    maps = model_zoo.multi_scale(small)
    shapes = {level: tensor.shape[1:] for level, tensor in maps.output.items()}
    assert shapes == {
        "2": (16, 16, 128),
        "3": (8, 8, 256),
        "4": (4, 4, 512),
        "5": (2, 2, 824),
    }
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    blocks = ("stage1_block2", "stage2_block2", "stage3_block2", "stage4_block1")
    ends = [small.get_layer(f"{block}_relu").output for block in blocks]
    received, expected = maps(images), keras.Model(small.input, ends)(images)
    for level, end in zip(shapes, expected, strict=True):
        np.testing.assert_array_equal(received[level], end)


def test_group_normalization_is_used_everywhere():
    model = model_zoo.create_model("aognet_cifar_an", normalization="group")
    kinds = {type(layer).__name__ for layer in model.layers if "norm" in layer.name}
    assert kinds == {"AttentiveNormalization", "GroupNormalization"}
    assert np.isfinite(ops.convert_to_numpy(model(np.ones((2, 32, 32, 3))))).all()


@pytest.mark.parametrize("name", ["aognet_12m_bn", "aognet_12m_an"])
def test_channels_first_gives_the_same_layers(name):
    before = keras.config.image_data_format()
    last = model_zoo.create_model(name, **SMALL)
    keras.config.set_image_data_format("channels_first")
    try:
        first = model_zoo.create_model(name, input_shape=(3, 64, 64))
    finally:
        keras.config.set_image_data_format(before)
    for a, b in zip(last.weights, first.weights, strict=True):
        assert (a.path, a.shape) == (b.path, b.shape)
