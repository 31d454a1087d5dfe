"""Networks by name."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable

import keras

from model_zoo.weights import tags

_MODELS: dict[str, "ModelInfo"] = {}
_ABSENT: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known of a network without building it.

    Accuracies are of ImageNet-1k, percent, one centre crop; `None`: not published.

    Attributes:
        name: what `create_model` takes.
        family: the table it comes from.
        lineage: whose network it is, of which paper, and the nearest one of the other
            lineage.
        input_shape: the default input, (height, width, channels) in pixels.
        classes: the default number of classes.
        parameters: trainable ones, with the default input and classes; `None`: not
            counted yet.
        top1, top5: of the authors' refactored release (iVMCL-Release).
        paper_top1, paper_top5: of the code of the paper (AOGNet-v2).
        recipe: how the authors trained it.
        build: the constructor; takes the keyword arguments of `create_model`.
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
        """Tags: `create_model("NAME.TAG")`. "imagenet" are those that Keras hosts."""
        hosted = ("imagenet",) if self.family == "applications" else ()
        return hosted + tags(self.name)


def register_model(name: str, **info) -> Callable:
    """Decorator: registers a constructor under `name`, with the fields of `ModelInfo`.

    Raises:
        ValueError: the name is taken.
    """
    if name in _MODELS:
        raise ValueError(f"A model called {name!r} is registered already.")

    def register(build):
        _MODELS[name] = ModelInfo(name=name, build=build, **info)
        return build

    return register


def register_absence(name: str, why: str) -> None:
    """Says why there is no network of a name that somebody may look for."""
    _ABSENT[name] = why


def split_name(name: str) -> tuple[str, str]:
    """ "NAME.TAG" -> name of the network, tag of its weights or ""."""
    network, _, tag = name.rpartition(".")
    known = network in _MODELS or network in _ABSENT
    return (network, tag) if tag and known else (name, "")


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell-style pattern, sorted."""
    if not isinstance(pattern, str):
        raise TypeError(f"`pattern` must be a string. Received: pattern={pattern!r}.")
    return sorted(fnmatch.filter(_MODELS, pattern))


def model_info(name: str) -> ModelInfo:
    """The record of a network; of `"NAME.TAG"`, that of the network NAME.

    Raises:
        TypeError: the name is no string.
        ValueError: unknown name; the message lists the nearest ones.
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string. Received: name={name!r}.")
    name, tag = split_name(name)
    if name in _ABSENT:
        raise ValueError(f"{_ABSENT[name]}. Received: {name!r}.")
    if tag and tag not in _MODELS[name].weights:
        raise ValueError(
            f"{name} has weights of these tags: "
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
        name: one of `list_models()`, or `"NAME.TAG"`: with the weights of that tag, and
            its input shape and classes unless others are given.
        include_top: with the classifier (the default).
        weights: `None`, the path of a `.weights.h5` file of this network, or a tag of
            `model_info(name).weights`. If the file has another number of classes, all
            but the head is loaded and one line of the log says so.
        input_tensor: `None`, or the tensor to use as the input.
        input_shape: `None` for the default, or (height, width, channels) in the order
            of the image data format; `None` stands for any height or width.
        pooling: without the top: `None` for the last feature map, `"avg"`, `"max"`.
        classes: number of classes; `None` for the default, 1000 of ImageNet or 10.
        classifier_activation: of the classifier; `None` returns logits.
        position: the norms of a block that are AN, `"norm1"`, `"norm12"`, ..., or
            `"all"`: every norm of the network; `None` for the published place.
        num_components: K, one int or one for each stage; `None` as published.
        normalization: `"batch"`, or `"group"` with gcd(32, C) groups, for all norms.
        synchronized: batch statistics over all replicas; on TensorFlow.
        norm_options: further arguments of every `AttentiveNormalization`; a tuple holds
            one value for each stage, as `{"gate_hidden_units": (20, 20, 40, 40)}`.
        **kwargs: all of the above; networks of `model_zoo.applications` take those of
            their constructors. MobileNetV2 takes `width_multiplier=1.0`
            and `round_channels=False` (to multiples of 8) besides. `name=` is the name
            of the Keras model, by default that of the network. `position`,
            `num_components` and `norm_options` change nothing in networks without AN.

    Raises:
        ValueError: unknown name (the message lists the nearest ones), arguments outside
            of these ranges, or weights that are damaged or of another network.
    """
    info = model_info(name)
    name, tag = split_name(name)
    if tag:
        if "weights" in kwargs:
            raise ValueError(
                f"Weights must be named once. Received: {name}.{tag} and "
                f"weights={kwargs['weights']!r}."
            )
        kwargs["weights"] = tag
    return info.build(**kwargs)
