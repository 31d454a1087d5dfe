"""The networks of Keras Applications, converted to attentive normalization.

Each network that has a normalization layer gets a constructor `AN<name>`. It takes the
arguments of the original and three of `an_keras.convert_normalization`. With
`weights="imagenet"`, the weights hosted by Keras are loaded into the original, which is
then converted: the network makes the same predictions as the original.
"""

import inspect
import logging
from collections.abc import Callable

import keras
import numpy as np

from an_keras import convert_normalization, graph
from model_zoo.blocks import data_format
from model_zoo.keras_applications import FAMILIES, Family
from model_zoo.registry import register_absence, register_model
from model_zoo.weights import classes_in, load_weights, log_new_head

CLASSES = 1000
OURS = {"where": "spatial", "num_components": None, "noise": 0.1}
WITHOUT_HASH = ("MobileNet", "MobileNetV2")


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
