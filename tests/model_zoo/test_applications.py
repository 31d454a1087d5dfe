"""Keras Applications with attentive normalization."""

import inspect
import logging
import math

import keras
import numpy as np
import pytest

import model_zoo
from an_keras import AttentiveNormalization
from an_keras.keras_internals import flatten_layers
from model_zoo import applications
from model_zoo.preprocessing import affine, preprocessing, preprocessing_layers
from tests.model_zoo import conversion

QUICK = ("ResNet50",)
SLOW = {  # one of each other family, and the least size of its images in pixels
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50V2": 32,
    "Xception": 71,
}
LARGEST = 80e6  # parameters; `make conversion` also converts larger networks


def case(name):
    mark = pytest.mark.slow if name in SLOW else pytest.mark.long
    return name if name in QUICK else pytest.param(name, marks=mark)


NETWORKS = [case(name) for name in conversion.NETWORKS]
CONVERTED = [
    case(name)
    for name in conversion.NETWORKS
    if model_zoo.model_info(f"applications.AN{name}").parameters <= LARGEST
]
SMALL = {"input_shape": (32, 32, 3)}


def attentive(model):
    layers = flatten_layers(model)
    return [each for each in layers if isinstance(each, AttentiveNormalization)]


@pytest.mark.parametrize("name", CONVERTED)
def test_conversion_keeps_outputs_and_new_weights_learn(name):
    size = 32 if name in QUICK else SLOW.get(name, conversion.SIZE)
    row = conversion.check(name, size)
    assert row["largest_difference"] < 1e-5
    assert row["seconds"] < 60


@pytest.mark.parametrize("name", NETWORKS)
def test_parameter_count_matches_the_registry(name):
    info = model_zoo.model_info(f"applications.AN{name}")
    model = model_zoo.create_model(info.name)
    counts = [math.prod(v.shape) for v in model.trainable_variables]
    assert sum(counts) == info.parameters
    assert model.output_shape == (None, info.classes)
    assert model.input_shape[1:] in (info.input_shape, (None, None, 3))


def test_all_networks_with_a_norm_have_a_variant():
    constructors = {name for name in dir(keras.applications) if name[0].isupper()}
    assert constructors - set(conversion.NETWORKS) == {"VGG16", "VGG19"}
    assert len(model_zoo.list_models("applications.*")) == 38
    for name, family in conversion.NETWORKS.items():
        build = getattr(applications, f"AN{name}")
        original = inspect.signature(getattr(keras.applications, name))
        ours = inspect.signature(build).parameters
        assert list(ours) == [*original.parameters, *applications.OURS]
        assert family.note in build.__doc__
    assert "unpublished" in applications.ANConvNeXtTiny.__doc__
    assert "no hash" in applications.ANMobileNet.__doc__


def test_vgg_error_gives_the_reason():
    with pytest.raises(ValueError, match=r"VGG16 has no normalization layer"):
        applications.ANVGG16()
    with pytest.raises(ValueError, match=r"VGG19 has no normalization layer"):
        model_zoo.create_model("applications.ANVGG19")


def test_mobilenets_have_the_published_components():
    options = {**SMALL, "alpha": 0.35, "weights": None}
    k = [e.num_components for e in attentive(applications.ANMobileNetV2(**options))]
    assert k == [5] * 10 + [10] * 7
    model = applications.ANMobileNetV3Small(weights=None)
    assert {e.num_components for e in attentive(model)} == {5, 10}
    model = applications.ANMobileNetV2(num_components=3, where="all", **options)
    assert len(attentive(model)) == 52
    assert {e.num_components for e in attentive(model)} == {3}


@pytest.mark.parametrize(
    "name",
    ["ResNet50", "ResNet50V2", "DenseNet121", "EfficientNetB0", "MobileNetV3Small"],
)
def test_preprocessing_matches_the_original(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3))
    build = getattr(applications, f"AN{name}")
    expected = build.preprocess_input(images.astype("float32"))
    received = model_zoo.preprocess_input(images, f"applications.AN{name}")
    np.testing.assert_allclose(received, expected, atol=1e-4)
    layers = preprocessing_layers(f"applications.AN{name}")
    resized = layers.layers[0](images)
    expected = build.preprocess_input(keras.ops.convert_to_numpy(resized).copy())
    np.testing.assert_allclose(layers(images), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        *("MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny"),
        pytest.param("EfficientNetV2S", marks=pytest.mark.slow),
    ],
)
def test_preprocessing_outside_the_network_is_the_same(name):
    """With `include_preprocessing=False`, callers must do what the first layers do."""
    original = getattr(keras.applications, name)(weights=None, **SMALL)
    first = next(
        i for i, layer in enumerate(original.layers) if layer.trainable_weights
    )
    seen = keras.Model(original.input, original.layers[first - 1].output)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    how = preprocessing(f"applications.AN{name}", include_preprocessing=False)
    scale, offset = affine(how.mean, how.std)
    expected = seen(images.astype("float32"))
    np.testing.assert_allclose(images * scale + offset, expected, atol=1e-5)
    assert not how.inside and preprocessing(f"applications.AN{name}").inside


def test_preprocessing_layers_are_saved_and_loaded(tmp_path):
    layers = preprocessing_layers("applications.ANResNet50")
    images = np.random.default_rng(0).uniform(0, 255, (1, 260, 240, 3))
    expected = layers(images)
    layers.save(tmp_path / "layers.keras")
    again = keras.models.load_model(tmp_path / "layers.keras")
    np.testing.assert_array_equal(again(images), expected)


def small(**options):
    """Builds the smallest network; its head is a convolution."""
    options = {"alpha": 0.25, "weights": None, "classes": 5, **SMALL, **options}
    return applications.ANMobileNet(**options)


def values(model, name):
    layer = model.get_layer(name)
    return [keras.ops.convert_to_numpy(v) for v in layer.variables]


@pytest.mark.slow
def test_weight_files_load_with_other_heads(tmp_path, caplog):
    path = tmp_path / "mobile.weights.h5"
    source = small()
    source.save_weights(path)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(small(weights=path)(images), source(images))
    assert not caplog.records
    for options in ({"classes": 7}, {"include_top": False}, {"pooling": "avg"}):
        options = {"include_top": "pooling" not in options, **options}
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            model = small(weights=str(path), **options)
        assert ["is for 5 classes" in r.getMessage() for r in caplog.records] == [True]
        for name in ("conv1", "conv_dw_13_bn", "conv_pw_13"):
            pairs = zip(values(model, name), values(source, name), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
    with pytest.raises(ValueError, match="a network other than"):
        applications.ANMobileNet(weights=path, alpha=0.5, classes=5, **SMALL)
    with pytest.raises(ValueError, match=r"path of a .weights.h5 file"):
        small(weights="imagenet21k")


def test_file_for_grey_images_classifies_the_same_in_colour(tmp_path, caplog):
    path = tmp_path / "mobilenet.weights.h5"
    grey = small(input_shape=(32, 32, 1))
    grey.save_weights(path)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    colour = small(weights=path)(images.repeat(3, -1))
    np.testing.assert_allclose(colour, grey(images), atol=1e-5)
    assert "adapted the input channels of conv1, 1 in" in caplog.text


@pytest.mark.slow
def test_counters_in_layer_names_are_ignored(tmp_path):
    """InceptionV3 leaves its layers unnamed: Keras numbers them in each process."""
    options = {"weights": None, "input_shape": (75, 75, 3), "classes": 3}
    path = tmp_path / "inception.weights.h5"
    first = applications.ANInceptionV3(**options)
    first.save_weights(path)
    second = applications.ANInceptionV3(**{**options, "weights": path})
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)))


@pytest.fixture
def hosted(tmp_path, monkeypatch):
    """Replaces Keras' host and its weights; the norms are as if trained."""
    plain = keras.applications.MobileNet(weights=None, alpha=0.25)
    rng = np.random.default_rng(0)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.1, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
    body = keras.Model(plain.inputs, plain.get_layer("conv_pw_13_relu").output)
    paths = {}
    for model, name in ((plain, "tf.h5"), (body, "tf_no_top.h5")):
        paths[name] = tmp_path / f"{name[:-3]}.weights.h5"
        model.save_weights(paths[name])

    def get_file(name, *args, **kwargs):
        return str(paths["tf_no_top.h5" if name.endswith("no_top.h5") else "tf.h5"])

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    return plain


def test_imagenet_weights_match_the_original(hosted, caplog):
    images = np.random.default_rng(1).uniform(-1, 1, (2, 224, 224, 3))
    images = images.astype("float32")
    with caplog.at_level(logging.WARNING):
        model = applications.ANMobileNet(alpha=0.25)  # weights="imagenet", as in Keras
    assert "no hash" in caplog.text
    np.testing.assert_allclose(model(images), hosted(images), rtol=1e-5)
    caplog.clear()
    small = {"alpha": 0.25, "weights": "imagenet", "dropout": 0.0}
    with caplog.at_level(logging.WARNING):
        model = applications.ANMobileNet(
            classes=10, input_shape=(96, 96, 3), classifier_activation=None, **small
        )
    assert "which is for 1000 classes" in caplog.text
    assert model.output_shape == (None, 10)
    for name in ("conv1", "conv_pw_13", "conv_pw_13_bn"):
        pairs = zip(values(model, name), values(hosted, name), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    rows = values(model, "conv_dw_13_bn")[0]
    gamma = values(hosted, "conv_dw_13_bn")[0]
    np.testing.assert_allclose(rows.sum(axis=0) / 2, gamma, rtol=1e-6)
    small |= {"input_shape": (128, 128, 3), "pooling": "avg"}
    model = applications.ANMobileNet(include_top=False, **small)
    assert model.output_shape == (None, 256)


def test_failed_download_raises(monkeypatch):
    def get_file(*args, **kwargs):
        raise Exception("URL fetch failure on https://...")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with pytest.raises(ConnectionError, match=r"of ResNet50 could not be .*URL fetch"):
        applications.ANResNet50()


def test_network_is_built_on_the_given_tensor():
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
    conv = keras.layers.Conv2D(3, 3, padding="same", name="mine")
    x = keras.layers.BatchNormalization(name="own_norm")(conv(x))
    base = small(input_tensor=x, include_top=False, input_shape=None)
    model = keras.Model(inputs, keras.layers.Flatten()(base.output))
    assert len(attentive(model)) == 13
    assert base.get_layer("mine") is conv
    assert keras.Model(inputs, base.get_layer("conv_pw_13_relu").output).outputs


@pytest.mark.slow
def test_efficientnet_imagenet_weights_fit_other_heads_and_files(tmp_path, monkeypatch):
    """With ImageNet weights, Keras scales the channels of EfficientNet once more."""
    plain = keras.applications.EfficientNetB0(weights=None)
    rng = np.random.default_rng(0)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.adapt_mean.assign([0.485, 0.456, 0.406])
            layer.adapt_variance.assign([0.229, 0.224, 0.225])
            layer.finalize_state()
    path = tmp_path / "efficientnet.weights.h5"
    plain.save_weights(path)
    monkeypatch.setattr(
        "keras.src.utils.file_utils.get_file", lambda *args, **kwargs: str(path)
    )
    images = rng.uniform(0, 255, (4, 224, 224, 3)).astype("float32")
    trained = keras.applications.EfficientNetB0(weights="imagenet")
    for norm in trained.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.momentum = 0.0
    trained(images, training=True)
    trained.save_weights(path)

    def features(model):
        activation = model.get_layer("top_activation").output
        return keras.ops.convert_to_numpy(keras.Model(model.input, activation)(images))

    expected = features(trained)
    file = tmp_path / "an.weights.h5"
    build = applications.ANEfficientNetB0
    same = build(weights="imagenet")
    same.save_weights(file)
    for model in (
        same,
        build(weights="imagenet", classes=10),
        build(weights=file),
        build(weights=file, classes=10),
    ):
        difference = np.abs(features(model) - expected).max() / expected.std()
        assert difference < 1e-3  # 0.7 with another scale


@pytest.mark.parametrize(
    ("options", "error"),
    [({"classes": 10, "shape": 3}, TypeError), ({"noise": -1}, ValueError)],
)
def test_invalid_arguments_raise(options, error):
    with pytest.raises(error):
        applications.ANMobileNet(weights=None, **SMALL, **options)
