"""Normalization of images, from the recipe to the export."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import model_zoo
from model_zoo import applications
from train import config, recipes
from train.cli import UsageError
from train.engine import loop, pixels, run_directory, strategies
from train.engine.run import Run
from train.export import image_classifier
from train.input import pipeline

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BGR = (103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255,) * 3
PIXELS = (0.0,), (1 / 255,)
QUICK = ("MobileNetV3Small", "MobileNet")
SLOW = (
    *("EfficientNetB0", "EfficientNetV2B0", "EfficientNetV2S", "ConvNeXtTiny"),
    *("ResNet50", "ResNet50V2", "DenseNet121", "MobileNetV2"),
)
ORIGINALS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Red and blue images, 32 x 32."""
    directory = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 4)):
        for name, channel in (("blue", 2), ("red", 0)):
            (directory / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8)
                image[..., channel] += 55
                path = directory / split / name / f"{i}.png"
                path.write_bytes(tf.io.encode_png(image).numpy())
    return f"folder:{directory}"


def recipe_of(network, weights=None, options=None, **settings):
    return config.Recipe(
        config.Model(network, options or {}, weights),
        config.Data(**{"name": "digits", **settings}),
    )


def settled(tmp_path, *model, channels=3, **settings):
    """Returns mean, std and whether the channels are reversed."""
    recipe = pixels.settle(recipe_of(*model, **settings), channels, tmp_path / "run")
    return tuple(getattr(recipe.data, name) for name in pixels.FIELDS)


def first_convolution(model):
    """Returns a model that outputs the input of the first layer with weights."""
    first = next(i for i, layer in enumerate(model.layers) if layer.trainable_weights)
    return keras.Model(model.input, model.layers[first - 1].output)


def in_order(images):
    return images[np.argsort(np.sum(images, axis=(1, 2, 3)))]


@pytest.mark.parametrize("name", ORIGINALS)
def test_first_convolution_sees_the_same_images_as_in_the_original(
    name, tmp_path, colours
):
    recipe = recipe_of(f"applications.AN{name}", name=colours, image_size=32)
    recipe = dataclasses.replace(recipe, batch_size=28)  # all of them
    with Run.open(tmp_path / "run", recipe, tf.distribute.get_strategy()) as run:
        seen = first_convolution(run.model)
    ((trained_on, _),) = pipeline.training_batches(run.data, 0, 28, 0, 1)
    ((evaluated, *_),) = pipeline.evaluation_batches(run.data, "train", 28)
    ((raw, *_),) = pipeline.evaluation_batches(
        run.data, "train", 28, standardized=False
    )
    original = getattr(applications, f"AN{name}").preprocess_input
    expected = np.asarray(seen(original(raw.numpy().astype("float32"))))
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(seen(evaluated), expected, atol=tolerance)
    received = np.asarray(seen(trained_on))
    np.testing.assert_allclose(in_order(received), in_order(expected), atol=tolerance)
    assert np.std(expected) > 0.2


@pytest.mark.parametrize("name", model_zoo.list_models("applications.*"))
def test_images_match_the_preprocessing_of_the_original(name, tmp_path):
    recipe = pixels.settle(recipe_of(name), 3, tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    build = getattr(applications, name.removeprefix("applications."))
    expected = build.preprocess_input(images.astype("float32"))
    received = pipeline.standardize(tf.constant(images), recipe.data)
    np.testing.assert_allclose(received, expected, atol=1e-4)
    zoo = model_zoo.preprocess_input(images, name)
    np.testing.assert_allclose(received, zoo, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [
        ("resnet20_an", 1, ((0.5,), (0.25,), False)),
        ("resnet20_an", 3, ((0.5,), (0.25,), False)),
        ("resnet50_an", 3, (*IMAGENET, False)),
        ("resnet50_an", 1, ((0.5,), (0.25,), False)),
        ("applications.ANResNet50", 3, (*BGR, True)),
        ("applications.ANResNet50", 1, ((0.5,), (0.25,), False)),
        ("applications.ANMobileNet", 1, ((0.5,), (0.5,), False)),
        ("applications.ANEfficientNetB0", 1, (*PIXELS, False)),
        ("applications.ANConvNeXtTiny", 3, (*PIXELS, False)),
        # Keras omits its normalization for grayscale images
        ("applications.ANConvNeXtTiny", 1, ((0.5,), (0.25,), False)),
    ],
)
def test_networks_trained_from_scratch_have_a_default(
    tmp_path, name, channels, expected
):
    assert settled(tmp_path, name, channels=channels) == expected
    own = {"mean": (0.3,), "std": (0.4,)}
    if expected[:2] != PIXELS:
        received = settled(tmp_path, name, channels=channels, **own)
        assert received == ((0.3,), (0.4,), False)


@pytest.mark.parametrize(
    ("name", "weights", "options", "channels", "expected"),
    [
        ("resnet20_an", "fashion_mnist", {}, 1, ((0.286,), (0.353,), False)),
        ("resnet20_an.fashion_mnist", None, {}, 1, ((0.286,), (0.353,), False)),
        ("applications.ANResNet50", "imagenet", {}, 3, (*BGR, True)),
        ("applications.ANResNet50.imagenet", None, {}, 3, (*BGR, True)),
        ("applications.ANResNet50", None, {"weights": "imagenet"}, 3, (*BGR, True)),
        ("applications.ANDenseNet121", "imagenet", {}, 3, (*IMAGENET, False)),
        ("applications.ANXception", "imagenet", {}, 3, ((0.5,), (0.5,), False)),
        ("applications.ANEfficientNetV2B0", "imagenet", {}, 3, (*PIXELS, False)),
        (
            *("applications.ANEfficientNetV2B0", "imagenet"),
            *({"include_preprocessing": False}, 3, (*IMAGENET, False)),
        ),
        ("applications.ANMobileNetV3Small", None, {}, 3, (*PIXELS, False)),
        ("applications.ANEfficientNetB0", "net.weights.h5", {}, 3, (*PIXELS, False)),
    ],
)
def test_recipe_must_agree_with_weights_and_rescaling_networks(
    tmp_path, name, weights, options, channels, expected
):
    model = name, weights, options
    assert settled(tmp_path, *model, channels=channels) == expected
    given = dict(zip(pixels.FIELDS, expected, strict=True))
    assert settled(tmp_path, *model, channels=channels, **given) == expected
    for field, other in (
        ("mean", (0.3,)),
        ("std", (0.9,) * channels),
        ("reverse_channels", not given["reverse_channels"]),
    ):
        with pytest.raises(UsageError, match="The recipe contradicts") as error:
            settled(tmp_path, *model, channels=channels, **{**given, field: other})
        assert f"data.mean={given['mean']}" in str(error.value)
        assert f"Received: data.mean={(given | {field: other})['mean']}" in str(
            error.value
        )


def test_recipe_may_give_the_expected_values_with_fewer_digits(tmp_path):
    given = {"mean": (0.0,) * 3, "std": (0.003922,)}
    received = settled(tmp_path, "applications.ANEfficientNetB0", **given)
    assert received == (*given.values(), False)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0"])
def test_networks_without_their_rescaling_accept_other_values(tmp_path, name):
    model = f"applications.AN{name}", None, {"include_preprocessing": False}
    own = {"mean": (0.3,), "std": (0.4,)}
    assert settled(tmp_path, *model, **own) == ((0.3,), (0.4,), False)
    assert settled(tmp_path, *model)[:2] != PIXELS


def test_weights_for_another_number_of_channels_are_rejected(tmp_path):
    with pytest.raises(UsageError, match="Expected images of 3 channels .*imagenet"):
        settled(tmp_path, "applications.ANResNet50", "imagenet", channels=1)


def claimed(directory, recipe):
    spec = run_directory.RunSpec(recipe, 1, (8, 8, 1), ("0", "1"), {"train": 10}, "")
    run_directory.claim(directory, spec)
    return spec


def test_run_normalizes_images_like_the_run_it_starts_from(tmp_path):
    digits = recipes.create_recipe("digits")
    claimed(tmp_path / "first", digits)
    model = "resnet20_an", str(tmp_path / "first")
    expected = digits.data.mean, digits.data.std, False
    assert settled(tmp_path, *model, channels=1) == expected
    with pytest.raises(UsageError, match=r"contradicts the run .*mean=\(0.305,\)"):
        own = {"mean": (0.5,), "std": (0.25,)}
        settled(tmp_path, *model, channels=1, **own)


def test_grey_images_get_the_average_normalization_of_a_run_on_colour_images(tmp_path):
    own = {"mean": (0.2, 0.4, 0.6), "std": (0.1, 0.2, 0.3), "reverse_channels": True}
    claimed(tmp_path / "first", recipe_of("resnet20_an", **own))
    model = "resnet20_an", str(tmp_path / "first")
    mean, std, reverse = settled(tmp_path, *model, channels=1)
    np.testing.assert_allclose([*mean, *std], [0.4, 0.2])
    assert not reverse
    assert settled(tmp_path, *model, channels=3) == tuple(own.values())


def test_colour_images_get_the_normalization_of_a_run_on_grey_images(tmp_path):
    own = {"mean": (0.2,), "std": (0.1,)}
    claimed(tmp_path / "first", recipe_of("resnet20_an", **own))
    model = "resnet20_an", str(tmp_path / "first")
    assert settled(tmp_path, *model, channels=3) == ((0.2,), (0.1,), False)


def test_resumed_run_keeps_its_normalization(tmp_path):
    """This includes runs of older versions, whose recipes always had mean and std."""
    name = "applications.ANEfficientNetB0"
    recipe = recipe_of(name, mean=(0.5,), std=(0.25,))
    spec = claimed(tmp_path / "run", recipe)
    path = tmp_path / "run" / "config.json"
    written = json.loads(path.read_text())
    del written["recipe"]["data"]["reverse_channels"]
    path.write_text(json.dumps(written))
    again = pixels.settle(recipe_of(name), 1, tmp_path / "run")
    assert again == recipe
    run_directory.claim(tmp_path / "run", dataclasses.replace(spec, recipe=again))


@pytest.mark.parametrize(
    "settings", [{"mean": (0.5,)}, {"std": (0.25,)}, {"reverse_channels": True}]
)
def test_incomplete_normalization_is_rejected(tmp_path, settings):
    with pytest.raises(UsageError, match=r"data.mean and data.std together"):
        settled(tmp_path, "resnet20_an", **settings)


def test_unknown_network_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="Cannot build resnet21: Unknown model"):
        settled(tmp_path, "resnet21")


def test_images_are_not_standardized_before_the_values_are_settled():
    with pytest.raises(ValueError, match="data.std are set"):
        pipeline.standardize(np.zeros((8, 8, 1)), config.Data("digits"))


def test_exports_use_bgr_like_training(tmp_path, colours):
    recipe = dataclasses.replace(
        recipe_of(
            "resnet8_bn",
            name=colours,
            image_size=32,
            mean=(0.4, 0.5, 0.6),
            std=(0.1, 0.2, 0.3),
            reverse_channels=True,
        ),
        batch_size=14,
        steps=2,
        steps_per_loop=2,
    )
    strategy = strategies.create("one", 1, None)
    with Run.open(tmp_path / "run", recipe, strategy) as run:
        assert "deviation 0.1, 0.2, 0.3 (of 0 to 1), BGR" in run.describe()
        loop.train(run)
    classifier = image_classifier.of_run(tmp_path / "run")
    assert classifier.description()["preprocessing"]["reverse_channels"] is True
    ((raw, *_),) = pipeline.evaluation_batches(run.data, "test", 8, standardized=False)
    ((images, *_),) = pipeline.evaluation_batches(run.data, "test", 8)
    np.testing.assert_allclose(classifier.standardize(raw), images, atol=1e-5)
    bgr = raw.numpy()[..., ::-1] / 255
    np.testing.assert_allclose(
        images, (bgr - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3], atol=1e-5
    )
    answers = classifier.serving_model(classifier.model)(raw)["probabilities"]
    expected = tf.nn.softmax(classifier.model(images))
    np.testing.assert_allclose(answers, expected, atol=1e-5)
