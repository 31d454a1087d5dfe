"""Networks by name."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable

import keras

_MODELS: dict[str, "ModelInfo"] = {}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known of a network without building it.

    Attributes:
        name: what `create_model` takes.
        family: the table it comes from.
        lineage: whose network it is, and of which paper and section.
        input_shape: the default input, (height, width, channels) in pixels.
        build: the constructor; takes the keyword arguments of `create_model`.
    """

    name: str
    family: str
    lineage: str
    input_shape: tuple[int, int, int]
    build: Callable[..., keras.Model]


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


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell-style pattern, sorted."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def model_info(name: str) -> ModelInfo:
    """The record of a network.

    Raises:
        ValueError: unknown name; the message lists the nearest ones.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=5, cutoff=0.4)
        expected = f"one like {', '.join(near)}" if near else "a name of list_models()"
        raise ValueError(f"Unknown model. Expected {expected}. Received: {name!r}.")
    return _MODELS[name]


def create_model(name: str, **kwargs) -> keras.Model:
    """Builds a network by name.

    Args:
        name: one of `list_models()`.
        **kwargs: arguments of the constructor: those of Keras Applications
            (`include_top, weights, input_tensor, input_shape, pooling, classes,
            classifier_activation, name`) and, for the published networks, `position,
            num_components, normalization, synchronized, norm_options`.

    Raises:
        ValueError: unknown name; the message lists the nearest ones.
    """
    return model_info(name).build(**kwargs)
