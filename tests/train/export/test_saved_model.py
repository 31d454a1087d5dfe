"""Operations in the signatures of exports, for every family of networks."""

import keras
import pytest
from keras import layers

import an_keras
import model_zoo
from train.export import copies, image_classifier, inspection, saved_model

FAMILIES = {  # the smallest network of each, and its image size in pixels
    "resnet20_an": 32,
    "resnet50_an": 32,
    "densenet121_an": 32,
    "aognet_cifar_an": 32,
    "mobilenetv2_an": 32,
    "applications.ANConvNeXtTiny": 32,
    "applications.ANDenseNet121": 32,
    "applications.ANEfficientNetB0": 32,
    "applications.ANEfficientNetV2B0": 32,
    "applications.ANEfficientNetV2S": 32,
    "applications.ANInceptionResNetV2": 75,
    "applications.ANInceptionV3": 75,
    "applications.ANMobileNet": 32,
    "applications.ANMobileNetV2": 32,
    "applications.ANMobileNetV3Small": 32,
    "applications.ANNASNetMobile": 224,
    "applications.ANResNet50": 32,
    "applications.ANResNet50V2": 32,
    "applications.ANXception": 71,
}


# Those of Keras Applications. TensorFlow's swish has its own gradient.
ACTIVATIONS = ("relu", "relu6", "silu", "hard_silu", "sigmoid", "hard_sigmoid", "gelu")


def create(name, size):
    """Builds a network for ten classes that returns logits."""
    return model_zoo.create_model(
        name, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )


def require_allowed(path, model, fold=True, precision="float32"):
    """Writes a SavedModel and inspects it as `serve_check` does."""
    shape = model.input_shape[1:]
    if precision != "float32":
        model = copies.with_precision(model, precision)
    classifier = image_classifier.ImageClassifier(
        model,
        version=1,
        shape=shape,
        shorter_side=shape[0],
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        reverse_channels=True,
        class_names=tuple("0123456789"),
        card={"model": model.name},
    )
    saved_model.write(classifier, classifier.network(fold), path)
    assert inspection.require_plain(path) > 20


@pytest.mark.parametrize(
    ("name", "fold", "precision"),
    [
        ("resnet8_an", False, "mixed_bfloat16"),
        ("resnet8_bn", True, "mixed_float16"),
    ],
)
def test_operations_in_lower_precision_are_allowed(name, fold, precision, tmp_path):
    require_allowed(tmp_path / "1", create(name, 8), fold, precision)


def test_layers_and_activations_of_keras_applications_are_allowed(tmp_path):
    x = images = keras.Input((8, 8, 3))
    x = layers.Normalization(mean=(0.4, 0.5, 0.6), variance=(0.1, 0.2, 0.3))(x)
    for activation in ACTIVATIONS:
        x = layers.Conv2D(4, 3, padding="same", activation=activation)(x)
    x = layers.Conv2D(4, 7, padding="same", groups=4)(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.SeparableConv2D(4, 3, padding="same")(x)
    x = layers.LayerNormalization()(layers.BatchNormalization()(x))
    x = an_keras.AttentiveNormalization(2)(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    require_allowed(tmp_path / "1", keras.Model(images, layers.Dense(10)(x)))


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_exports_of_every_family_are_allowed(name, tmp_path):
    require_allowed(tmp_path / "1", create(name, FAMILIES[name]))


@pytest.mark.long
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", ["mobilenetv2_an", "applications.ANMobileNetV3Small"])
def test_exports_of_every_precision_are_allowed(name, fold, precision, tmp_path):
    require_allowed(tmp_path / "1", create(name, 32), fold, precision)
