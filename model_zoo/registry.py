"""Registry of networks by name."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable

import keras

from model_zoo.weight_sets import tags

_MODELS: dict[str, "ModelInfo"] = {}
_ABSENT: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known about a network without building it.

    Accuracies are in percent on ImageNet-1k with one centre crop; `None` if they were
    not published.

    Attributes:
        name: Name for `create_model`.
        family: Name of the family of networks.
        lineage: Authors and paper of the network, and the closest network of Keras
            Applications.
        input_shape: Default input shape, (height, width, channels) in pixels.
        classes: Default number of classes.
        parameters: Number of trainable parameters with the default input and classes;
            `None` if they are not counted yet.
        top1, top5: Accuracies of the authors' refactored release (iVMCL-Release).
        paper_top1, paper_top5: Accuracies of the code of the paper (AOGNet-v2).
        recipe: How the authors trained it.
        build: The constructor. It takes the keyword arguments of `create_model`.
    """

    name: str
    family: str
    lineage: str
    input_shape: tuple[int, int, int]
    classes: int
    parameters: int | None
    build: Callable[..., keras.Model]
    top1: float | None = None
    top5: float | None = None
    paper_top1: float | None = None
    paper_top5: float | None = None
    recipe: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """Tags for `create_model("NAME.TAG")`. Keras hosts the "imagenet" weights."""
        hosted = ("imagenet",) if self.family == "applications" else ()
        return hosted + tags(self.name)


def register_model(name: str, **info) -> Callable:
    """Decorator that registers a constructor under `name`, with fields of `ModelInfo`.

    Raises:
        ValueError: If the name is taken.
    """
    if name in _MODELS:
        raise ValueError(f"A model called {name!r} is already registered.")

    def register(build):
        _MODELS[name] = ModelInfo(name=name, build=build, **info)
        return build

    return register


def register_absence(name: str, why: str) -> None:
    """Registers why a name that users may look for has no network."""
    _ABSENT[name] = why


def split_name(name: str) -> tuple[str, str]:
    """Splits "NAME.TAG" into the name of the network and the tag, "" if none."""
    network, _, tag = name.rpartition(".")
    known = network in _MODELS or network in _ABSENT
    return (network, tag) if tag and known else (name, "")


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the networks that match a shell-style pattern."""
    if not isinstance(pattern, str):
        raise TypeError(f"`pattern` must be a string. Received: pattern={pattern!r}.")
    return sorted(fnmatch.filter(_MODELS, pattern))


def model_info(name: str) -> ModelInfo:
    """Returns the record of a network; for `"NAME.TAG"`, that of the network NAME.

    Raises:
        TypeError: If the name is not a string.
        ValueError: If the name is unknown. The message lists the closest ones.
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string. Received: name={name!r}.")
    name, tag = split_name(name)
    if name in _ABSENT:
        raise ValueError(f"{_ABSENT[name]}. Received: {name!r}.")
    if tag and tag not in _MODELS[name].weights:
        raise ValueError(
            f"{name} has weights with these tags: "
            f"{', '.join(_MODELS[name].weights) or 'none'}. Received: {tag!r}."
        )
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=5, cutoff=0.4)
        expected = f"one like {', '.join(near)}" if near else "a name of list_models()"
        raise ValueError(f"Unknown model. Expected {expected}. Received: {name!r}.")
    return _MODELS[name]


def create_model(name: str, /, **kwargs) -> keras.Model:
    """Builds a network by name.

    Args:
        name: A name from `list_models()`. `"NAME.TAG"` also loads the weights with that
            tag, and selects their input shape and classes unless others are given.
        include_top: Whether to include the classifier. Defaults to `True`.
        weights: `None`, the path of a `.weights.h5` file of this network, or a tag from
            `model_info(name).weights`. If the file has another number of classes, all
            but the head is loaded; for another number of input channels, the kernel of
            the first convolution is adapted. A log message says so.
        input_tensor: `None`, or the tensor to use as the input.
        input_shape: `None` for the default, or (height, width, channels) in the order
            of the image data format; `None` stands for any height or width.
        pooling: Without the top: `None` for the last feature map, `"avg"` or `"max"`.
        classes: Number of classes; `None` for the default, 1000 for ImageNet or 10.
        classifier_activation: Activation of the classifier; `None` returns logits.
        position: The norms of a block that are AN, `"norm1"`, `"norm12"`, ..., or
            `"all"` for every norm of the network; `None` for the published place.
        num_components: K, one int or one for each stage; `None` for the published K.
        normalization: `"batch"`, or `"group"` with gcd(32, C) groups, for all norms.
        synchronized: Whether to compute batch statistics over all replicas; on
            TensorFlow.
        norm_options: Further arguments of every `AttentiveNormalization`. A tuple holds
            one value for each stage, as in `{"gate_hidden_units": (20, 20, 40, 40)}`.
        dropout: Rate of the dropout before the classifier, in [0, 1]; by default as
            published, 0.2 in MobileNetV2 and 0 in the others.
        **kwargs: All of the above. Networks of `model_zoo.applications` take the
            arguments of their constructors. MobileNetV2 also takes
            `width_multiplier=1.0` and `round_channels=False` (to multiples of 8),
            AOGNet takes `channel_dropout`, one rate or one for each stage.
            `name=` is the name of the Keras model, by default that of the network.
            `position`, `num_components` and `norm_options` have no effect on networks
            with BN. In `_se` networks, `position` is the place of
            squeeze-and-excitation.

    Raises:
        TypeError: If an argument has the wrong type or is unknown.
        ValueError: If the name is unknown (the message lists the closest ones), an
            argument is out of range, or the weights are damaged or belong to another
            network.
    """
    info = model_info(name)
    name, tag = split_name(name)
    if tag:
        if "weights" in kwargs:
            raise ValueError(
                f"Weights must be given once. Received: {name}.{tag} and "
                f"weights={kwargs['weights']!r}."
            )
        kwargs["weights"] = tag
    return info.build(**kwargs)
