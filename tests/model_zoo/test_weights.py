"""Weights files: strict loading, new heads, other input channels."""

import logging
import pathlib
import shutil

import h5py
import keras
import numpy as np
import pytest
from keras import ops

import model_zoo
from model_zoo import weights
from tests.model_zoo import reference

SMALL = {"input_shape": (32, 32, 3)}


@pytest.fixture
def file(tmp_path):
    """Returns a model and its weights file."""
    model = model_zoo.create_model("resnet8_an", classes=7, **SMALL)
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    return model, path


def backbone(model):
    return [
        ops.convert_to_numpy(w)
        for layer in model.layers
        if layer.name != "predictions"
        for w in layer.weights
    ]


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_weights_must_be_given_once(file):
    with pytest.raises(ValueError, match="must be given once"):
        model_zoo.create_model("resnet20_an.fashion_mnist", weights=file[1])


def test_none_selects_the_shape_and_classes_of_the_tag():
    model = model_zoo.create_model(
        "resnet20_an.fashion_mnist", input_shape=None, classes=None, name="clothes"
    )
    assert (model.input_shape, model.name) == ((None, 28, 28, 1), "clothes")


def test_file_of_the_same_network_loads(file):
    model, path = file
    again = model_zoo.create_model("resnet8_an", classes=7, weights=path, **SMALL)
    assert_equal(model.get_weights(), again.get_weights())


def test_other_classes_get_a_new_head_and_a_log_message(file, caplog):
    model, path = file
    with caplog.at_level(logging.INFO):
        other = model_zoo.create_model("resnet8_an", classes=3, weights=path, **SMALL)
    assert [record.getMessage() for record in caplog.records] == [
        f"resnet8_an: loaded all but the head, which is for 7 classes in {path}"
    ]
    assert_equal(backbone(model), backbone(other))
    assert other.output_shape == (None, 3)
    assert np.std(other.get_layer("predictions").kernel) > 0


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_network_without_the_top_loads_the_rest(file, pooling):
    model, path = file
    other = model_zoo.create_model(
        "resnet8_an", include_top=False, pooling=pooling, weights=path, **SMALL
    )
    assert_equal(backbone(model), backbone(other))


def test_tag_without_the_top_accepts_any_image_size():
    features = model_zoo.create_model(
        "resnet20_an.fashion_mnist",
        include_top=False,
        pooling="avg",
        input_shape=(None, None, 1),
    )
    whole = model_zoo.create_model("resnet20_an.fashion_mnist")
    assert_equal(backbone(features), backbone(whole))
    assert features(np.zeros((1, 40, 36, 1))).shape == (1, 64)


def test_file_without_the_top_leaves_a_new_head(tmp_path, caplog):
    path = tmp_path / "features.weights.h5"
    features = model_zoo.create_model("resnet8_an", include_top=False, **SMALL)
    features.save_weights(path)
    whole = model_zoo.create_model("resnet8_an", weights=path, **SMALL)
    assert_equal(backbone(features), backbone(whole))
    assert "all but the head, which is missing in" in caplog.text


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8_bn", {}),
        ("resnet20_an", {}),
        ("resnet8_an", {"position": "norm2"}),  # same shapes
        ("resnet8_an", {"position": "norm12"}),
        ("resnet8_an", {"num_components": 5}),
        ("resnet8_bn", {"input_shape": (32, 32, 1)}),
        ("resnet8_an", {"input_shape": (32, 32, 1), "num_components": 5}),
    ],
)
@pytest.mark.parametrize("classes", [7, 8])
def test_weights_of_another_network_are_refused(file, name, options, classes):
    options = {**SMALL, **options}
    with pytest.raises(ValueError, match="holds the weights of a network other than"):
        model_zoo.create_model(name, classes=classes, weights=file[1], **options)


@pytest.mark.parametrize(("stored", "own"), [(1, 3), (3, 1), (1, 4), (2, 6)])
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet8_an", {}), ("mobilenetv2_bn", {"width_multiplier": 0.1})],
)
def test_other_channels_keep_the_outputs_for_grey_images(
    name, options, stored, own, tmp_path, caplog
):
    options = {**options, "classes": 7, "classifier_activation": None}
    model = model_zoo.create_model(name, input_shape=(32, 32, stored), **options)
    reference.fill(model)
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    adapted = model_zoo.create_model(
        name, input_shape=(32, 32, own), weights=path, **options
    )
    assert [record.getMessage() for record in caplog.records] == [
        f"{name}: adapted the input channels of stem_conv, {stored} in {path}, to {own}"
    ]
    assert_equal(model.get_weights()[1:], adapted.get_weights()[1:])
    grey = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    expected = ops.convert_to_numpy(model(grey.repeat(stored, -1)))
    received = ops.convert_to_numpy(adapted(grey.repeat(own, -1)))
    assert expected.std() > 0
    np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected).max())


def test_other_channels_and_classes_are_both_logged(file, caplog):
    model, path = file
    shape = (32, 32, 1)
    other = model_zoo.create_model(
        "resnet8_an", classes=3, weights=path, input_shape=shape
    )
    head, stem = (record.getMessage() for record in caplog.records)
    assert "all but the head, which is for 7 classes" in head
    assert "adapted the input channels of stem_conv, 3 in" in stem
    assert_equal(backbone(model)[1:], backbone(other)[1:])


def test_tag_for_grey_images_classifies_the_same_in_colour():
    name = "resnet20_an.fashion_mnist"
    grey = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    colour = model_zoo.create_model(name, input_shape=(28, 28, 3))
    received = colour(model_zoo.preprocess_input(grey.repeat(3, -1), name))
    expected = model_zoo.create_model(name)(model_zoo.preprocess_input(grey, name))
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_kernels_are_summed_or_repeated_and_scaled():
    kernel = np.array([1.0, 2.0, 6.0], "float32").reshape(1, 1, 3, 1)
    for channels, expected in (
        (1, [9.0]),
        (2, [1.5, 3.0]),
        (4, [0.75, 1.5, 4.5, 0.75]),
        (6, [0.5, 1.0, 3.0, 0.5, 1.0, 3.0]),
    ):
        adapted = weights.adapt_kernel(kernel, channels)
        assert adapted.dtype == "float32"
        np.testing.assert_array_equal(adapted.ravel(), expected)


def two_convolutions(channels=3, kernel_size=3, filters=4, name="first"):
    inputs = keras.Input((8, 8, channels))
    x = keras.layers.Conv2D(filters, kernel_size, bias_initializer="normal", name=name)(
        inputs
    )
    return keras.Model(inputs, keras.layers.Conv2D(5, 3, name="second")(x))


def test_adapted_convolution_keeps_its_bias(tmp_path):
    path = tmp_path / "a.weights.h5"
    grey, colour = two_convolutions(1), two_convolutions(3)
    grey.save_weights(path)
    weights.load_weights(colour, path)
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(colour(image.repeat(3, -1)), grey(image), atol=1e-5)
    assert_equal(colour.get_weights()[1:], grey.get_weights()[1:])
    assert np.std(colour.get_weights()[1]) > 0


@pytest.mark.parametrize(
    "other", [{"kernel_size": 1}, {"filters": 3}, {"name": "stem"}]
)
def test_only_the_channels_of_the_first_convolution_may_differ(other, tmp_path):
    path = tmp_path / "a.weights.h5"
    two_convolutions(1).save_weights(path)
    model = two_convolutions(3, **other)
    before = model.get_weights()
    with pytest.raises(ValueError, match="weights of a network other than"):
        weights.load_weights(model, path)
    assert_equal(model.get_weights(), before)


def test_adapted_numbers_must_be_finite(tmp_path):
    path = tmp_path / "a.weights.h5"
    model = two_convolutions(3)
    model.layers[1].kernel.assign(np.full((3, 3, 3, 4), 2e38))
    model.save_weights(path)
    with pytest.raises(ValueError, match="first/kernel holds numbers that are not"):
        weights.load_weights(two_convolutions(1), path)


def test_swapped_layers_are_refused(file):
    network, path = file
    with h5py.File(path, "r+") as opened:
        for old, new in (
            ("conv2d_1", "t"),
            ("conv2d_2", "conv2d_1"),
            ("t", "conv2d_2"),
        ):
            opened.move(f"layers/{old}", f"layers/{new}")
    before = network.get_weights()
    with pytest.raises(ValueError, match="Expected the layers of .* in their order"):
        weights.load_weights(network, path)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_numbers_too_large_for_the_model_are_reported(file):
    network, path = file
    with h5py.File(path, "r+") as opened:
        array = opened["layers/conv2d/vars/0"]
        array[...] = np.full(array.shape, 1e5)
    keras.config.set_dtype_policy("float16")
    try:
        with pytest.raises(ValueError, match="not finite in float16"):
            model_zoo.create_model("resnet8_an", classes=7, weights=path, **SMALL)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a torch file", b"\x89HDF\r\n\x1a\n cut off"]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a .weights.h5 file or is damaged"):
        model_zoo.create_model("resnet8_an", weights=path, **SMALL)


def test_truncated_file_is_refused(file):
    _, path = file
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="is not a .weights.h5 file or is damaged"):
        model_zoo.create_model("resnet8_an", classes=7, weights=path, **SMALL)


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(ValueError, match="path of a .weights.h5 file"):
        model_zoo.create_model("resnet8_an", weights=tmp_path / "no.weights.h5")


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_files_of_whole_models_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="must be None, the path of a .weights.h5"):
        model_zoo.create_model("resnet8_an", weights=path, **SMALL)


def test_other_hdf5_files_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.zeros(3)
        file["layers/b/c/0"] = np.zeros(3)
    with pytest.raises(ValueError, match="weights of a network other than resnet8_an"):
        model_zoo.create_model("resnet8_an", weights=path, **SMALL)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Returns a small network to load files into, its weights and their file."""
    model = model_zoo.create_model("resnet8_an", classes=7, input_shape=(28, 28, 1))
    path = tmp_path_factory.mktemp("small") / "a.weights.h5"
    model.save_weights(path)
    return model, model.get_weights(), path


@pytest.fixture
def small_copy(small, tmp_path):
    return pathlib.Path(shutil.copy(small[2], tmp_path))


CONV, NORM, HEAD = (
    f"layers/{name}/vars" for name in ("conv2d", "batch_normalization", "dense")
)


def replace(file, path, **new):
    del file[path]
    file.create_dataset(path, **new)


def head_of(kernel, bias):
    def spoil(file):
        for name, shape in (("0", kernel), ("1", bias)):
            chunks = tuple(min(size, 1000) for size in shape) or None
            options = {"shape": shape, "dtype": "f4", "chunks": chunks}
            if 0 in shape:
                options["chunks"] = None
            replace(file, f"{HEAD}/{name}", **options)

    return spoil


def numbers_as(dtype):
    def spoil(file):
        replace(file, f"{CONV}/0", data=file[f"{CONV}/0"][()].astype(dtype))

    return spoil


def texts(file):
    replace(file, f"{CONV}/0", shape=(3, 3, 1, 16), dtype=h5py.string_dtype())


def filled_with(path, value):
    def spoil(file):
        numbers = file[path][()].astype("f8")
        numbers.flat[-1] = value
        replace(file, path, data=numbers)

    return spoil


def linked_to(link):
    def spoil(file):
        file.move(f"{CONV}/0", "kernel")
        file[f"{CONV}/0"] = link

    return spoil


def virtual(file):
    shape = file[f"{CONV}/0"].shape
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("other.h5", "kernel", shape=shape)
    del file[f"{CONV}/0"]
    file.create_virtual_dataset(f"{CONV}/0", layout)


def elsewhere(file):
    storage = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    replace(file, f"{CONV}/0", shape=(3, 3, 1, 16), dtype="f4", external=storage)


def large_chunks(file):
    options = {"chunks": (300, 30, 100, 16), "maxshape": (None,) * 4}
    kernel = file[f"{CONV}/0"][()]
    replace(file, f"{CONV}/0", data=kernel, compression="gzip", **options)


ONE_NUMBER = "Expected the arrays of its classifier 'predictions' to agree on the num"
ITSELF = "in the file itself"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (head_of((64, 10**10), (10**10,)), "declares 2560000000000 bytes.*Received: 0"),
        (head_of((64, 10**10), (7,)), "declares 2560000000000 bytes"),
        (head_of((2**40, 2**40), (2**40,)), "declares 483570327845\\d+ bytes"),
        (head_of((), ()), "'layers/dense/vars/0' declares 4 bytes"),
        (filled_with(f"{HEAD}/0", np.nan), "predictions/kernel holds .* not finite"),
        (lambda file: replace(file, f"{HEAD}/0", data=1.0), ONE_NUMBER),
        (head_of((64, 0), (0,)), f"{ONE_NUMBER}.*Received: .64, 0., .0,."),
        (lambda file: replace(file, f"{HEAD}/1", data=np.ones(8)), ONE_NUMBER),
        (
            lambda file: replace(file, f"{HEAD}/1", data=h5py.Empty("f4")),
            "has no shape",
        ),
        (filled_with(f"{CONV}/0", np.nan), "refused: stem_conv/kernel holds .* finite"),
        (filled_with(f"{CONV}/0", -np.inf), "stem_conv/kernel holds .* not finite"),
        (filled_with(f"{CONV}/0", 1e300), "stem_conv/kernel holds .* not finite"),
        (filled_with(f"{NORM}/3", -1), "stem_norm/moving_variance holds variances bel"),
        (numbers_as("S5"), "vars/0' holds .S5. Expected floating point"),
        (numbers_as("c8"), "vars/0' holds complex64. Expected floating point"),
        (numbers_as("?"), "vars/0' holds bool. Expected floating point"),
        (numbers_as("i4"), "has integer .3, 3, 1, 16., expected float .3, 3, 1, 16."),
        (texts, "vars/0' holds object"),
        (linked_to(h5py.SoftLink("/kernel")), f"vars/0' is a link. .* {ITSELF}"),
        (linked_to(h5py.ExternalLink("b.h5", "/a")), f"vars/0' is a link. .* {ITSELF}"),
        (virtual, f"vars/0' has its numbers in another file. .* {ITSELF}"),
        (elsewhere, f"vars/0' has its numbers in another file. .* {ITSELF}"),
        (large_chunks, "vars/0' declares 57600000 bytes"),
        (
            lambda file: replace(file, f"{CONV}/0", data=np.ones((3, 3, 16, 1))),
            "'stem_conv' has float .3, 3, 16, 1., expected float .3, 3, 1, 16.",
        ),
    ],
)
def test_invalid_arrays_are_refused(small, small_copy, spoil, words):
    with h5py.File(small_copy, "r+") as file:
        attributes = dict(file[HEAD].attrs)
        spoil(file)
        file[HEAD].attrs.update(attributes)
    with pytest.raises(ValueError, match=words) as error:
        weights.load_weights(small[0], small_copy)
    assert len(str(error.value)) < 1000


def test_head_of_other_classes_is_not_read(small, small_copy):
    with h5py.File(small_copy, "r+") as file:
        file[f"{HEAD}/0"][...] = np.nan
    options = {"classes": 5, "input_shape": (28, 28, 1), "weights": small_copy}
    model = model_zoo.create_model("resnet8_an", **options)
    assert_equal(model.get_weights()[:-2], small[1][:-2])
    assert np.isfinite(model.get_weights()[-2]).all()


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"dtype": ">f8"}])
def test_compressed_files_and_other_precisions_load(small, small_copy, options):
    with h5py.File(small_copy, "r+") as file:
        paths = []
        file.visit(paths.append)
        for path in paths:
            if isinstance(file[path], h5py.Dataset):
                replace(file, path, data=file[path][()], **options)
    model, expected, _ = small
    for variable in model.weights:
        variable.assign(np.ones(variable.shape))
    weights.load_weights(model, small_copy)
    assert_equal(model.get_weights(), expected)
