"""Code shared by all published networks: their table rows and Keras' arguments."""

import abc
import dataclasses
import inspect
from typing import ClassVar

import keras

from model_zoo.blocks import data_format, head, image_input, source
from model_zoo.norms import Norms
from model_zoo.parameter_counts import parameter_count
from model_zoo.published import published
from model_zoo.registry import register_model
from model_zoo.weight_sets import TAGS, tags, verified_file
from model_zoo.weights import load_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSpec(abc.ABC):
    """A row of a family's table; the family adds its own fields and `features`.

    Attributes:
        lineage: Authors of the network, with paper and section.
        counterpart: The closest network of Keras Applications, and how it differs.
        num_components: K of AN for each stage.
        position: The norm of a block that is AN.
        block_norms: Number of norms in a block.
        input_shape: Default input shape, (height, width, channels), in pixels.
        smallest: Minimum height and width, in pixels.
        classes: Default number of classes.
        dropout: Dropout rate before the classifier.
        options: Fields that users may set through `create_model`.
    """

    lineage: str
    counterpart: str = "none"
    num_components: tuple[int, ...]
    position: str = "norm2"
    block_norms: int = 3
    input_shape: tuple[int, int, int] = (224, 224, 3)
    smallest: int = 32
    classes: int = 1000
    dropout: float = 0.0
    options: ClassVar[tuple[str, ...]] = ("dropout",)

    @abc.abstractmethod
    def features(self, x, norm: Norms):
        """Maps the images to the last activation."""

    def classifier_initializers(self) -> tuple | None:
        """Initializers of kernel and bias; `None` for those of `blocks.head`."""
        return None


def build_network(
    spec: NetworkSpec,
    variant: str,
    include_top: bool = True,
    weights=None,
    input_tensor=None,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
    position: str | None = None,
    num_components: int | tuple[int, ...] | None = None,
    normalization: str = "batch",
    synchronized: bool = False,
    norm_options: dict | None = None,
) -> keras.Model:
    """Builds a row's network as "bn", "an" or "se".

    Other arguments and errors are those of `model_zoo.create_model`.
    """
    norm = Norms(
        variant=variant,
        position=spec.position if position is None else position,
        block_norms=spec.block_norms,
        num_components=(
            spec.num_components if num_components is None else num_components
        ),
        stages=len(spec.num_components),
        normalization=normalization,
        synchronized=synchronized,
        norm_options=norm_options,
    )
    inputs = image_input(input_tensor, input_shape, spec.input_shape, spec.smallest)
    outputs = head(
        spec.features(inputs, norm),
        include_top,
        pooling,
        spec.classes if classes is None else classes,
        classifier_activation,
        spec.dropout,
        spec.classifier_initializers(),
    )
    model = keras.Model(source(inputs), outputs, name=name)
    load_weights(model, weights)
    return model


ARGUMENTS = {*inspect.signature(build_network).parameters} - {"spec", "variant"}


def register_network(network: str, variant: str, family: str, spec: NetworkSpec):
    """Registers `build_network` for a row and a variant, as `NETWORK_VARIANT`."""
    name = f"{network}_{variant}"
    lineage = f"{spec.lineage}. Closest in Keras Applications: {spec.counterpart}."

    def build(weights=None, **kwargs):
        if unknown := {*kwargs} - ARGUMENTS - {*spec.options}:
            raise TypeError(
                f"{name} does not have the arguments {', '.join(sorted(unknown))}. "
                f"Expected some of {', '.join(sorted(ARGUMENTS | {*spec.options}))}."
            )
        if isinstance(weights, str) and weights in tags(name):
            record = TAGS[name, weights]
            if kwargs.get("classes") is None:
                kwargs["classes"] = record.classes
            if kwargs.get("input_tensor") is None and not kwargs.get("input_shape"):
                kwargs["input_shape"] = data_format(record.input_shape)
            weights = verified_file(name, weights)
        options = {key: kwargs.pop(key, None) for key in spec.options}
        given = {key: value for key, value in options.items() if value is not None}
        row = dataclasses.replace(spec, **given)
        kwargs.setdefault("name", name)
        return build_network(row, variant, weights=weights, **kwargs)

    build.__doc__ = f"""{lineage}

    Arguments and errors are those of `model_zoo.create_model`.
    """
    register_model(
        name,
        family=family,
        lineage=lineage,
        input_shape=spec.input_shape,
        classes=spec.classes,
        parameters=parameter_count(name),
        **published(name),
    )(build)
