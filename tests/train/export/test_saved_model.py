"""What the signatures of exports consist of, in every family of networks."""

import pytest
import tensorflow as tf

import model_zoo
from train.export import image_classifier, operations, saved_model

FAMILIES = {  # the smallest network of each, and the pixels that it needs
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


def require_allowed(name, size, fold=True, precision="float32"):
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
        card={},
    )
    functions, _ = saved_model.endpoints(exported, exported.network(fold))
    assert functions.keys() == {"serving_default", "features", "image_bytes"}
    for function, spec in functions.values():
        traced = tf.function(function, input_signature=[spec]).get_concrete_function()
        graph = traced.graph.as_graph_def()
        nodes = [*graph.node]
        for inner in graph.library.function:
            assert not inner.attr["_XlaMustCompile"].b
            nodes += inner.node_def
        assert {node.op for node in nodes} <= operations.IN_FUNCTIONS


@pytest.mark.parametrize(
    ("name", "fold", "precision"),
    [
        ("resnet20_an", False, "mixed_bfloat16"),
        ("resnet20_bn", True, "mixed_float16"),
    ],
)
def test_operations_in_fewer_bits_are_allowed(name, fold, precision):
    require_allowed(name, 8, fold, precision)


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_operations_of_every_family_are_allowed(name):
    require_allowed(name, FAMILIES[name])


@pytest.mark.long
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", ["mobilenetv2_an", "applications.ANMobileNetV3Small"])
def test_operations_of_every_precision_are_allowed(name, fold, precision):
    require_allowed(name, 32, fold, precision)
