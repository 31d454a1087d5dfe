"""Preprocessing of the published evaluation, compared with Pillow; class names."""

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from keras import ops

import model_zoo
from model_zoo import preprocessing

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def picture(height, width, seed=0):
    """Returns a uint8 image of soft shapes and fine noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (5, 6, 3), dtype="uint8")
    image = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.BICUBIC)
    noise = generator.integers(-20, 21, (height, width, 3))
    return np.clip(np.asarray(image, "int16") + noise, 0, 255).astype("uint8")


def by_pillow(image, shorter_side=256, crop=224):
    """Does the same as torchvision's Resize and CenterCrop of a Pillow image."""
    height, width = image.shape[:2]
    short = min(height, width)
    size = (shorter_side * width // short, shorter_side * height // short)
    resized = PIL.Image.fromarray(image).resize(size, PIL.Image.BILINEAR)
    left = round((size[0] - crop) / 2)
    top = round((size[1] - crop) / 2)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


SIZES = [(300, 500), (500, 333), (256, 256), (97, 131), (375, 1200), (40, 30)]


@pytest.mark.parametrize("size", SIZES)
def test_resize_and_crop_matches_pillow(size):
    image = picture(*size)
    ours = ops.convert_to_numpy(preprocessing.resize_and_crop(image))
    assert ours.shape == (224, 224, 3)
    # Pillow rounds to whole numbers after each of its two passes.
    assert np.abs(ours - by_pillow(image)).max() <= 1.0


@pytest.mark.parametrize("name", ["resnet50_an", "mobilenetv2_bn", "densenet121_an"])
def test_layers_and_functions_give_the_published_input(name):
    image = picture(300, 451)
    expected = (by_pillow(image) / 255 - MEAN) / STD
    cropped = preprocessing.resize_and_crop(image[None])
    functions = ops.convert_to_numpy(model_zoo.preprocess_input(cropped, name))
    layers = ops.convert_to_numpy(preprocessing.preprocessing_layers(name)(image[None]))
    assert functions.dtype == layers.dtype == np.float32
    # Tolerance 1/255 on the scale of the published mean and std
    assert (np.abs(functions[0] - expected) * STD).max() <= 1 / 255
    np.testing.assert_allclose(layers, functions, atol=1e-5)


def test_numpy_images_of_any_size_stay_numpy():
    images = picture(5, 7)[None]
    outputs = model_zoo.preprocess_input(images, "resnet50_an")
    assert isinstance(outputs, np.ndarray) and outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, (images / 255 - MEAN) / STD, atol=1e-6)


def test_small_images_have_their_own_scale():
    grey = np.full((2, 8, 8, 1), 255, "uint8")
    outputs = model_zoo.preprocess_input(grey, "resnet20_an")
    np.testing.assert_allclose(outputs, 2.0)


def test_layers_work_in_a_saved_model(tmp_path):
    inputs = keras.Input((None, None, 3), dtype="uint8")
    network = model_zoo.create_model("mobilenetv2_an")
    outputs = network(preprocessing.preprocessing_layers("mobilenetv2_an")(inputs))
    model = keras.Model(inputs, outputs)
    image = picture(261, 300)[None]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(image), model(image))
    by_hand = model_zoo.preprocess_input(
        preprocessing.resize_and_crop(image), "mobilenetv2_an"
    )
    np.testing.assert_allclose(model(image), network(by_hand), atol=1e-6)


def test_layers_keep_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layers = preprocessing.preprocessing_layers("resnet50_an")
    finally:
        keras.config.set_dtype_policy("float32")
    assert ops.dtype(layers(picture(30, 30)[None])) == "float32"


def test_channels_first_works():
    image = picture(60, 97)
    expected = preprocessing.preprocessing_layers("resnet50_an")(image[None])
    keras.config.set_image_data_format("channels_first")
    try:
        layers = preprocessing.preprocessing_layers("resnet50_an")
        outputs = layers(image.transpose(2, 0, 1)[None])
        functions = model_zoo.preprocess_input(
            preprocessing.resize_and_crop(image.transpose(2, 0, 1)), "resnet50_an"
        )
    finally:
        keras.config.set_image_data_format("channels_last")
    expected = ops.transpose(expected, (0, 3, 1, 2))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(functions, expected[0], atol=1e-5)


def test_symbolic_images_may_have_unknown_size():
    inputs = keras.Input((None, None, 3), dtype="uint8")
    model = keras.Model(inputs, preprocessing.resize_and_crop(inputs, 64, 56))
    image = picture(90, 70)
    expected = preprocessing.resize_and_crop(image[None], 64, 56)
    np.testing.assert_allclose(model(image[None]), expected)


@pytest.mark.parametrize("shape", [(1, 3_000_000), (3_000_000, 2)])
def test_extremely_long_images_need_little_memory(shape):
    image = np.broadcast_to(np.arange(shape[1])[:, None] % 2 * 100.0, (*shape, 3))
    unknown = tf.function(
        preprocessing.resize_and_crop,
        input_signature=[tf.TensorSpec((None, None, 3), tf.float32)],
    )
    for function in (preprocessing.resize_and_crop, unknown):
        outputs = ops.convert_to_numpy(function(image.astype("float32")))
        assert outputs.min() >= 0 and outputs.max() <= 100 and outputs.mean() > 30


def test_long_sides_are_resized_exactly():
    image = np.full((1, 10_000, 3), 100, "uint8")
    outputs = preprocessing.resize_and_crop(image, 2**20, 8)
    np.testing.assert_allclose(outputs, 100, rtol=1e-6)


def test_resize_and_crop_works_in_tf_data():
    images = [picture(60, 80), picture(90, 70)]
    spec = tf.TensorSpec((None, None, 3), tf.uint8)
    dataset = tf.data.Dataset.from_generator(lambda: images, output_signature=spec)
    dataset = dataset.map(preprocessing.resize_and_crop)
    for image, output in zip(images, dataset, strict=True):
        expected = preprocessing.resize_and_crop(image)
        np.testing.assert_allclose(output, expected, atol=1e-3)


def test_pillow_images_and_lists_are_accepted():
    image = picture(9, 9)
    expected = model_zoo.preprocess_input(image, "resnet50_an")
    for other in (PIL.Image.fromarray(image), image.tolist()):
        outputs = model_zoo.preprocess_input(other, "resnet50_an")
        np.testing.assert_array_equal(outputs, expected)


def test_layer_computes_its_output_shape():
    layer = preprocessing.ResizeAndCrop(64, 56)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, 56, 56, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: preprocessing.resize_and_crop(picture(30, 30), 224, 256),
            "`crop` must be from 1 to `shorter_side`. Received: crop=256",
        ),
        (
            lambda: preprocessing.ResizeAndCrop(100, 224),
            "`crop` must be from 1 to `shorter_side`. Received: crop=224",
        ),
        (
            lambda: preprocessing.resize_and_crop(picture(30, 30), 10**30),
            "`shorter_side` must be at most 1048576. Received: shorter_side=1000",
        ),
        (
            lambda: preprocessing.resize_and_crop(np.zeros((30, 30))),
            "rank 3 or 4. Received: shape \\(30, 30\\)",
        ),
        (
            lambda: preprocessing.resize_and_crop(np.zeros((2, 0, 5, 3)), 8, 8),
            "must have a height and a width. Received: shape \\(2, 0, 5, 3\\)",
        ),
        (
            lambda: preprocessing.resize_and_crop(picture(30, 30), 256.5),
            "`shorter_side` must be an integer. Received: shorter_side=256.5",
        ),
        (
            lambda: model_zoo.decode_predictions(np.zeros((2, 1000)), top=1.5),
            "`top` must be an integer. Received: top=1.5",
        ),
        (
            lambda: model_zoo.preprocess_input(np.zeros((2, 8, 8, 1)), "resnet50_an"),
            "must be \\(..., H, W, 3\\) for resnet50_an",
        ),
        (
            lambda: model_zoo.preprocess_input(np.zeros((2, 8, 8, 3)), "resnet51"),
            "Unknown model",
        ),
        (
            lambda: model_zoo.preprocess_input(np.zeros((2, 8, 8, 3)), "resnet50_an.x"),
            "resnet50_an has weights with these tags: none. Received: 'x'",
        ),
        (
            lambda: model_zoo.decode_predictions(np.zeros((2, 10))),
            "must be \\(N, 1000\\)",
        ),
        (
            lambda: model_zoo.decode_predictions(np.zeros((2, 1000)), top=0),
            "`top` must be from 1 to 1000",
        ),
    ],
)
def test_invalid_arguments_are_reported(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_resize_and_crop_accepts_lists():
    image = picture(9, 8)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(preprocessing.resize_and_crop(image.tolist(), 8, 8)),
        ops.convert_to_numpy(preprocessing.resize_and_crop(image, 8, 8)),
    )


def test_predictions_are_decoded_to_class_names():
    predictions = np.zeros((2, 1000), "float32")
    predictions[0, [2, 0, 999]] = 0.5, 0.3, 0.2
    predictions[1, 639] = 1.0
    first, second = model_zoo.decode_predictions(predictions, top=3)
    assert [row[:2] for row in first] == [
        ("n01484850", "great white shark"),
        ("n01440764", "tench"),
        ("n15075141", "toilet tissue"),
    ]
    assert [row[2] for row in first] == pytest.approx([0.5, 0.3, 0.2])
    assert second[0] == ("n03710721", "maillot tank suit", 1.0)


def test_1000_classes_are_in_the_order_of_their_ids():
    ids, names = zip(*preprocessing.imagenet_classes(), strict=True)
    assert len(ids) == 1000 and list(ids) == sorted(set(ids))
    assert len(set(names)) == 1000
