"""Operations in the signatures of exports, for every family of networks."""

import pytest

import model_zoo
from train.export import image_classifier, inspection, saved_model

FAMILIES = {  # the smallest network of each, and its image size in pixels
    "resnet20_an": 32,
    "resnet50_an": 32,
    "densenet121_an": 32,
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

# One network for each activation: TensorFlow's swish has a gradient of its own.
ACTIVATIONS = (
    "applications.ANConvNeXtTiny",
    "applications.ANEfficientNetB0",
    "applications.ANMobileNetV3Small",
)


def require_allowed(path, name, size, fold=True, precision="float32"):
    """Writes a SavedModel and looks at it as `serve_check` does."""
    shape = (size, size, 3)
    model = model_zoo.create_model(
        name, input_shape=shape, classes=10, classifier_activation=None
    )
    if precision != "float32":
        model = image_classifier.with_precision(model, precision)
    exported = image_classifier.ImageClassifier(
        model,
        version=1,
        shape=shape,
        shorter_side=size,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        reverse_channels=True,
        class_names=tuple("0123456789"),
        card={"model": name},
    )
    saved_model.write(exported, exported.network(fold), path)
    assert inspection.require_plain(path) > 20


@pytest.mark.parametrize(
    ("name", "fold", "precision"),
    [
        ("resnet20_an", False, "mixed_bfloat16"),
        ("resnet20_bn", True, "mixed_float16"),
    ],
)
def test_operations_in_lower_precision_are_allowed(name, fold, precision, tmp_path):
    require_allowed(tmp_path / "1", name, 8, fold, precision)


def mark(name):
    return pytest.mark.slow if name in ACTIVATIONS else pytest.mark.long


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=mark(name)) for name in FAMILIES]
)
def test_exports_of_every_family_are_allowed(name, tmp_path):
    require_allowed(tmp_path / "1", name, FAMILIES[name])


@pytest.mark.long
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", ["mobilenetv2_an", "applications.ANMobileNetV3Small"])
def test_exports_of_every_precision_are_allowed(name, fold, precision, tmp_path):
    require_allowed(tmp_path / "1", name, 32, fold, precision)
