"""The networks of Keras Applications, converted to attentive normalization.

Each network that has a normalization layer gets a constructor `AN<name>`. It takes the
arguments of the original and three of `an_keras.convert_normalization`. With
`weights="imagenet"`, the weights hosted by Keras are loaded into the original, which is
then converted: the network makes the same predictions as the original.
"""

import dataclasses
import inspect
import logging
import re
from collections.abc import Callable

import keras
import numpy as np

from an_keras import convert_normalization, graph
from model_zoo.blocks import data_format
from model_zoo.registry import register_absence, register_model
from model_zoo.weights import classes_in, load_weights, log_new_head

CLASSES = 1000
# K by stride for networks with inverted bottlenecks. For MobileNetV2 the paper gives K
# by row: 5 in the first four, 10 in the last three.
MOBILE = {2: 5, 4: 5, 8: 5, 16: 10, 32: 10}
BY_ANALOGY = (
    "The paper has no network of this family; K is that of its MobileNetV2, by stride."
)
OURS = {"where": "spatial", "num_components": None, "noise": 0.1}


def mobilenet_v2_components(layer: keras.Layer) -> int:
    """Returns the published K of MobileNetV2 (table 5.2; rows 1-4 end with block 9)."""
    block = re.match(r"block_(\d+)_", layer.name)
    first = int(block[1]) <= 9 if block else layer.name != "Conv_1_bn"
    return 5 if first else 10


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks from one module of `keras.applications`.

    Attributes:
        module: Name of the module.
        mode: Preprocessing of the images: "caffe", "tf" or "torch" as in Keras, "none"
            if it is part of the network.
        mode_without: Preprocessing of images if `mode` is "none" and that part of the
            network is left out, as with `include_preprocessing=False`.
        networks: {constructor: (pixels of the default input, trainable parameters)}.
        num_components: Argument of `convert_normalization`.
        note: Text added to the docstring.
    """

    module: str
    mode: str
    networks: dict[str, tuple[int, int]]
    num_components: dict | Callable | None = None
    note: str = "The paper has no network of this family."
    mode_without: str | None = None

    def has_preprocessing(self, channels: int, include_preprocessing: bool) -> bool:
        """Whether a network takes images of 0 to 255; ConvNeXts do so only for RGB."""
        rgb_only = self.module == "convnext"
        return (
            self.mode == "none"
            and include_preprocessing
            and (channels == 3 or not rgb_only)
        )


FAMILIES = (
    Family(
        "resnet",
        "caffe",
        {
            "ResNet50": (224, 25_781_730),
            "ResNet101": (224, 45_052_726),
            "ResNet152": (224, 60_927_074),
        },
        note="The paper's own network is resnet{50,101,152}_an: stride in the 3x3 "
        "convolution, no biases.",
    ),
    Family(
        "resnet_v2",
        "tf",
        {
            "ResNet50V2": (224, 25_770_348),
            "ResNet101V2": (224, 45_032_640),
            "ResNet152V2": (224, 60_899_308),
        },
    ),
    Family(
        "densenet",
        "torch",
        {
            "DenseNet121": (224, 8_341_308),
            "DenseNet169": (224, 14_690_588),
            "DenseNet201": (224, 20_674_140),
        },
        note="The paper's own network is densenet{121,169,201}_an.",
    ),
    Family("mobilenet", "tf", {"MobileNet": (224, 4_361_841)}, MOBILE, BY_ANALOGY),
    Family(
        "mobilenet_v2",
        "tf",
        {"MobileNetV2": (224, 3_672_640)},
        mobilenet_v2_components,
        "The paper's own network is mobilenetv2_an.",
    ),
    Family(
        "mobilenet_v3",
        "none",
        {"MobileNetV3Small": (224, 2_609_079), "MobileNetV3Large": (224, 5_616_640)},
        MOBILE,
        BY_ANALOGY,
        mode_without="tf",
    ),
    Family(
        "efficientnet",
        "none",
        {
            "EfficientNetB0": (224, 5_788_818),
            "EfficientNetB1": (240, 8_550_756),
            "EfficientNetB2": (260, 9_933_286),
            "EfficientNetB3": (300, 13_310_184),
            "EfficientNetB4": (380, 20_898_508),
            "EfficientNetB5": (456, 32_545_058),
            "EfficientNetB6": (528, 45_851_470),
            "EfficientNetB7": (600, 70_265_360),
        },
    ),
    Family(
        "efficientnet_v2",
        "none",
        {
            "EfficientNetV2B0": (224, 7_906_538),
            "EfficientNetV2B1": (240, 9_045_448),
            "EfficientNetV2B2": (260, 11_146_134),
            "EfficientNetV2B3": (300, 15_762_934),
        },
        mode_without="torch",
    ),
    Family(
        "efficientnet_v2",
        "none",
        {
            "EfficientNetV2S": (384, 23_462_452),
            "EfficientNetV2M": (480, 57_979_182),
            "EfficientNetV2L": (480, 125_286_720),
        },
        mode_without="tf128",
    ),
    Family(
        "convnext",
        "none",
        {
            "ConvNeXtTiny": (224, 28_947_700),
            "ConvNeXtSmall": (224, 50_983_516),
            "ConvNeXtBase": (224, 89_604_348),
            "ConvNeXtLarge": (224, 199_286_332),
            "ConvNeXtXLarge": (224, 352_222_076),
        },
        note="Its norms are layer normalization: attentive normalization over it is "
        "unpublished.",
        mode_without="torch",
    ),
    Family("inception_v3", "tf", {"InceptionV3": (299, 24_401_098)}),
    Family("inception_resnet_v2", "tf", {"InceptionResNetV2": (299, 56_699_234)}),
    Family(
        "nasnet",
        "tf",
        {"NASNetMobile": (224, 6_116_698), "NASNetLarge": (331, 93_166_750)},
    ),
    Family("xception", "tf", {"Xception": (299, 24_243_510)}),
)
WITHOUT_HASH = ("MobileNet", "MobileNetV2")
ORIGINALS = {
    f"applications.AN{name}": (family, size)
    for family in FAMILIES
    for name, (size, _) in family.networks.items()
}


def _constructor(family: Family, name: str) -> Callable[..., keras.Model]:
    original = getattr(keras.applications, name)
    signature = inspect.signature(original)
    defaults = {**OURS, "num_components": family.num_components}

    def build(*args, **kwargs):
        ours = {key: kwargs.pop(key, value) for key, value in defaults.items()}
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        arguments = dict(given.arguments)
        weights, tensor = arguments.pop("weights"), arguments.pop("input_tensor")
        if tensor is not None:
            arguments["input_shape"] = tuple(tensor.shape[1:])
        plain = original(weights=None, **arguments)
        if weights == "imagenet":
            _load_imagenet(plain, family, name, arguments)
        model = convert_normalization(plain, **ours)
        if weights not in (None, "imagenet"):

            def same_network(**changes):
                changed = {**arguments, "input_shape": None, **changes}
                return convert_normalization(original(weights=None, **changed), **ours)

            _load(model, weights, same_network, arguments)
        return model if tensor is None else graph.rebuild_on(model, tensor)

    module = getattr(keras.applications, family.module)
    build.__name__ = build.__qualname__ = f"AN{name}"
    build.__doc__ = _docstring(family, name)
    build.__signature__ = signature.replace(
        parameters=[
            *signature.parameters.values(),
            *(
                inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value)
                for key, value in defaults.items()
            ),
        ]
    )
    build.preprocess_input = module.preprocess_input
    build.decode_predictions = module.decode_predictions
    return build


def _docstring(family, name):
    unverified = (
        "\n            Keras publishes no hash of these weights: they are not verified."
    )
    return f"""`keras.applications.{name}` with attentive normalization.

    {family.note}

    Args:
        weights: `"imagenet"` (the default, as in Keras) for the converted weights
            hosted by Keras: the network makes the same predictions as the original.
            `None` for newly initialized weights. Or the path of a `.weights.h5` file
            of this network. If the weights have other classes, the head is new and a
            log message says so.{unverified if name in WITHOUT_HASH else ""}
        where, num_components, noise: Arguments of `an_keras.convert_normalization`.
        Others: Arguments of the original.

    Attributes:
        preprocess_input, decode_predictions: Functions of the original.

    Raises:
        ConnectionError: If the weights cannot be downloaded.
        ValueError: If an argument is out of range or the weights belong to another
            network.
    """


def _load_imagenet(plain, family, name, arguments):
    """Loads Keras' weights into the original; with other classes, all but the head."""
    if name in WITHOUT_HASH:
        logging.getLogger(__name__).warning(
            "%s: Keras publishes no hash of its weights", name
        )
    size, _ = family.networks[name]
    as_hosted = {
        "input_shape": data_format((size, size, 3)),
        "classes": CLASSES,
        "classifier_activation": "softmax",
    }
    try:
        original = getattr(keras.applications, name)
        trained = original(weights="imagenet", **{**arguments, **as_hosted})
    except (ValueError, Warning):  # a bad argument, or a file with another hash
        raise
    except Exception as error:
        raise ConnectionError(
            f"The ImageNet weights of {name} could not be loaded: {error}. "
            "Expected network access, a file in Keras' cache, weights=None or "
            "weights=PATH."
        ) from error
    _copy_body(trained, plain)
    _absorb_rescaling(trained, plain)
    if arguments["include_top"] and arguments["classes"] != CLASSES:
        log_new_head(plain, CLASSES, "the ImageNet weights")


def _absorb_rescaling(trained, plain):
    """Folds the channel scales of Keras' EfficientNets into the variance.

    With ImageNet weights, these networks have an additional layer after the
    normalization that scales each channel.
    """
    for layer in trained.layers:
        is_scale = isinstance(layer, keras.layers.Rescaling)
        if is_scale and isinstance(layer.scale, (list, tuple)):
            (norm,) = (
                each
                for each in plain.layers
                if isinstance(each, keras.layers.Normalization)
            )
            variance = keras.ops.convert_to_numpy(norm.adapt_variance)
            norm.adapt_variance.assign(variance / np.square(layer.scale))
            norm.finalize_state()


def _load(model, path, same_network, arguments):
    """Loads a weights file with the same head, another one or none."""
    with_top = same_network(include_top=True, classes=CLASSES)
    head = _weighted(with_top)[-1].name
    classes = classes_in(path, head)
    if arguments["include_top"] == bool(classes):
        load_weights(model, path, head)
        return
    # without their top, some networks lack more than the head
    trained = with_top if classes else same_network(include_top=False)
    load_weights(trained, path, head)
    _copy_body(trained, model)
    if classes in (0, CLASSES):  # otherwise `load_weights` has logged it
        log_new_head(model, classes, path)


def _weighted(model):
    return [layer for layer in model.layers if layer.variables]


def _copy_body(source, target):
    """Copies the weights of all layers but the head, in the order of the layers."""
    pairs = list(zip(_weighted(source), _weighted(target), strict=False))
    for old, new in pairs:
        shapes = [variable.shape for variable in old.variables]
        if shapes == [variable.shape for variable in new.variables]:
            graph.copy_values(old, new)
        elif (old, new) != pairs[-1]:
            raise ValueError(
                f"{target.name} must be the same network as {source.name}, with as "
                f"many input channels. Received: {new.name}, whose weights differ from "
                f"those of {old.name}."
            )


def _register(family, name):
    size, parameters = family.networks[name]
    build = globals()[f"AN{name}"]

    @register_model(
        f"applications.AN{name}",
        family="applications",
        lineage=f"keras.applications.{name}, converted. {family.note}",
        input_shape=(size, size, 3),
        classes=CLASSES,
        parameters=parameters,
    )
    def without_download(weights=None, **kwargs):
        return build(weights=weights, **kwargs)


for _family in FAMILIES:
    for _name in _family.networks:
        globals()[f"AN{_name}"] = _constructor(_family, _name)
        _register(_family, _name)


def _absent(name):
    why = (
        f"keras.applications.{name} has no normalization layer that could become "
        "attentive. Expected a network of list_models('applications.*')"
    )
    register_absence(f"applications.AN{name}", why)

    def build(*args, **kwargs):
        raise ValueError(f"{why}. Received: AN{name}.")

    build.__doc__ = f"Raises a ValueError: {why}."
    return build


ANVGG16, ANVGG19 = _absent("VGG16"), _absent("VGG19")
