"""Recipes: what a run trains, as a dataclass, and overrides from the command line."""

import ast
import contextlib
import dataclasses
import difflib
import json
import os
import types
import typing
import warnings

from train import paths
from train.cli import UsageError

PREFIXES = ("idx:", "folder:")  # prefixes of data sets in a directory
_LOCAL = ", ".join(["digits", *(f"{prefix}DIR" for prefix in PREFIXES)])
INTERPOLATIONS = ("bilinear", "bicubic")
LARGEST = 2**14  # pixels
TRAINED = ("all", "norms", "all_but_norms")
DATA_SETS = f"{_LOCAL} or a name of tensorflow-datasets"  # what `data.name` may be


@dataclasses.dataclass(frozen=True)
class Model:
    """A network of the zoo.

    Attributes:
        name: Name of the network, as in `model_zoo.create_model`.
        options: Further arguments of that function, such as `{"position": "norm12"}`.
        weights: Initial weights, instead of random ones: a tag of the zoo, a
            `.weights.h5` file or the directory of a run (its best weights). A
            classifier for other classes is recreated, and the first convolution is
            adapted to images of other channels.
        trained: `"all"`; `"norms"` trains only the norms and the classifier;
            `"all_but_norms"` leaves statistics and tables of the norms as they are.
    """

    name: str
    options: dict = dataclasses.field(default_factory=dict)
    weights: str | None = None
    trained: str = "all"

    def __post_init__(self):
        if self.trained not in TRAINED:
            raise UsageError(
                f"Recipe field model.trained must be one of {', '.join(TRAINED)}. "
                f"Received: {self.trained!r}."
            )
        if self.weights is not None:
            weights = paths.expand(self.weights, "of the recipe field model.weights")
            if os.path.isdir(weights) or weights.endswith(".h5"):  # not a tag
                weights = os.path.abspath(weights)
            object.__setattr__(self, "weights", weights)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set and the processing of its images.

    Attributes:
        name: `digits`, `idx:DIR`, `folder:DIR`, or a tensorflow-datasets name.
        image_size: Height and width in pixels after resizing the shorter side and
            cropping the centre. `None` keeps the images, which must be of one size.
        shorter_side: Pixels to which the shorter side is resized before the centre crop
            of evaluation and exports. `None`: `image_size`.
        interpolation: `"bilinear"` or `"bicubic"`, wherever images are resized.
        mean, std: Statistics of the pixels on a scale of 0 to 1, one for each channel
            or one for all. The network's input is (image / 255 - mean) / std. `None`
            selects those of the weights or the network (`train.engine.pixels`).
        reverse_channels: Whether the network's input is BGR; mean and std are in that
            order. If they are `None`, this follows from the network.
        class_names: Class names for data whose labels are only numbers (idx files).
        validation_fraction: Part of each class of the training images that is set
            aside for validation if the data set has no such split. 0: nothing is set
            aside, and the test images are used for validation, too, as published for
            ImageNet; the accuracy of the best checkpoint is then slightly optimistic.
        min_crop_area: Smallest fraction of the image that a random crop keeps. 1: no
            random crops.
        antialias: Whether to antialias random crops. Without it, the pipeline is about
            twice as fast.
        rand_augment: Magnitude M of RandAugment, which applies two operations in turn.
            0: no RandAugment.
        shift: Largest random shift in pixels, filled with black.
        flip: Whether to flip images horizontally, with a probability of 1/2.
        mixup: Parameter a of lambda ~ Beta(a, a), drawn for each batch of a replica. An
            image becomes lambda * image + (1 - lambda) * another image of the batch.
            Losses are mixed in the same way. 0: no mixup.
        mixup_reversed: Whether image i of a batch is mixed with the i-th from its end,
            and pixels are rounded, as in the authors' release. If not, the partners are
            a random permutation, as in the paper's code.
        memory_limit: Limit for the encoded images of a split in GiB. Below it they are
            held in memory and shuffled over the whole split. Above it they are read
            from their files (`train.input.order.ShardedSplit`).
    """

    name: str
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shorter_side: int | None = None
    interpolation: str = "bilinear"
    reverse_channels: bool = False
    class_names: tuple[str, ...] = ()
    validation_fraction: float = 0.1
    min_crop_area: float = 1.0
    antialias: bool = True
    rand_augment: float = 0.0
    shift: int = 0
    flip: bool = False
    mixup: float = 0.0
    mixup_reversed: bool = False
    memory_limit: float = 4.0

    def __post_init__(self):
        kind, colon, directory = self.name.partition(":")
        if f"{kind}{colon}" in PREFIXES:
            directory = paths.expand(directory, f"in --data={kind}:DIR")
            directory = os.path.abspath(directory)
            object.__setattr__(self, "name", f"{kind}:{directory}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                "Recipe field data.interpolation must be one of "
                f"{', '.join(INTERPOLATIONS)}. Received: {self.interpolation!r}."
            )


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """SGD as published: L2 in the gradient, momentum, warm-up and cosine.

    Attributes:
        learning_rate: Learning rate for 256 images, scaled with the global batch.
        momentum: Momentum m in v = m * v + g, w = w - learning_rate * v.
        nesterov: Whether the step is g + m * v instead of v (Nesterov momentum).
        weight_decay: L2 coefficient.
        decay_norms_and_biases: Whether all trainable weights are decayed, as published.
            If not, gamma, beta and bias are excluded.
        warmup_epochs: Epochs of linear warm-up.
        warmup_from: The rate at which the warm-up starts, in parts of the highest one.
        final_learning_rate: The rate at the end of the cosine; not scaled.
        clip_norm: Global norm to which gradients are clipped, over all weights and
            replicas. `None`: no clipping.
        average: Decay d in average = d * average + (1 - d) * weights, after every step.
            The decay is smaller in the first steps (`PublishedSGD`). The averaged
            weights are evaluated, kept as the best and exported, with the moving
            statistics of the norms unchanged. 0: no averages.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = True
    warmup_epochs: float = 5.0
    warmup_from: float = 0.0
    final_learning_rate: float = 0.0
    clip_norm: float | None = None
    average: float = 0.0


LEAST = 1e-12  # the smallest value that counts as positive
LIMITS = (
    ("batch_size", 1, 2**24),
    ("epochs", LEAST, 1e6),
    ("steps", 1, 2**40),
    ("evaluate_every", LEAST, 1e6),
    ("steps_per_loop", 1, 2**24),
    ("seed", 0, 2**31 - 1),
    ("data.image_size", 1, LARGEST),
    ("data.shorter_side", 1, LARGEST),
    ("data.mean", -1e6, 1e6),
    ("data.std", LEAST, 1e6),
    ("data.validation_fraction", 0, 0.9),
    ("data.min_crop_area", LEAST, 1),
    ("data.rand_augment", 0, 10),
    ("data.shift", 0, LARGEST),
    ("optimizer.learning_rate", 0, 1e6),
    ("optimizer.momentum", 0, 1),
    ("optimizer.weight_decay", 0, 1e6),
    ("optimizer.warmup_epochs", 0, 1e6),
    ("optimizer.warmup_from", 0, 1),
    ("optimizer.final_learning_rate", 0, 1e6),
    ("optimizer.clip_norm", LEAST, 1e12),
    ("optimizer.average", 0, 1 - 1e-9),
    ("data.mixup", 0, 1e3),
    ("data.memory_limit", 0, 2**20),
    ("label_smoothing", 0, 1),
    ("accumulation", 1, 2**16),
)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The complete settings of a training run: equal recipes give equal runs.

    Attributes:
        batch_size: Images in a step, over all replicas.
        epochs: Passes over the training images.
        steps: Length of the run in steps. `None` derives it from `epochs`.
        steps_per_loop: Steps between two lines of progress, at most an epoch.
        evaluate_every: Epochs between two evaluations of the validation images, rounded
            to whole loops.
        seed: Seed of initialization, shuffling and augmentation.
        label_smoothing: Smoothing e in the loss: (1 - e) times the cross entropy with
            the label plus e times the mean cross entropy with all classes.
        accumulation: Number of parts in which the batch of a replica is computed, one
            after the other, to save memory. Batch norms see one part at a time.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` with a scaled
            loss, or `"float64"`, to compare runs beyond rounding.
        jit_compile: Whether to compile forward and backward passes with XLA. Only for
            one replica; a TPU compiles everything anyway.
    """

    model: Model
    data: Data
    optimizer: Optimizer = Optimizer()
    batch_size: int = 128
    epochs: float = 100.0
    steps: int | None = None
    evaluate_every: float = 1.0
    steps_per_loop: int = 50
    seed: int = 0
    label_smoothing: float = 0.0
    accumulation: int = 1
    precision: str = "float32"
    jit_compile: bool = False

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"Recipe field precision must be one of {', '.join(PRECISIONS)}. "
                f"Received: {self.precision!r}."
            )
        options = self.model.options
        try:
            json.dumps(options, allow_nan=False)
        except (RecursionError, TypeError, ValueError) as error:
            raise UsageError(
                f"Recipe field model.options must be plain values. {error}. "
                f"Received: {options}."
            ) from error
        if not all(isinstance(name, str) for name in options):
            raise UsageError(
                "Recipe field model.options must have argument names as keys. "
                f"Received: {options}."
            )
        for name, low, high in LIMITS:
            node = self
            for part in name.split("."):
                node = getattr(node, part)
            if node == ():
                raise UsageError(
                    f"Recipe field {name} must contain at least one number. "
                    "Received: ()."
                )
            for value in node if isinstance(node, tuple) else (node,):
                if value is not None and not low <= value <= high:
                    raise UsageError(
                        f"Recipe field {name} must be from {low:g} to {high:g}. "
                        f"Received: {value}."
                    )


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """Applies assignments such as `optimizer.learning_rate=0.1` to a recipe.

    Raises:
        UsageError: If there is no such field, or a value has the wrong type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"Expected --set=FIELD=VALUE. Received: {assignment!r}.")
        recipe = _replace(recipe, path, path.split("."), text)
    return recipe


def _replace(node, path, names, text):
    fields = typing.get_type_hints(type(node))
    name = names[0]
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=3) or fields
        raise UsageError(
            f"Unknown recipe field {path!r}. Expected one like {', '.join(near)}. "
            f"Received: {name!r}."
        )
    value = getattr(node, name)
    if dataclasses.is_dataclass(value) != (len(names) > 1):
        raise UsageError(
            f"Expected the full name of one recipe field. Received: {path!r}."
        )
    if len(names) > 1:
        new = _replace(value, path, names[1:], text)
    else:
        new = _parse(path, text, fields[name])
    return dataclasses.replace(node, **{name: new})


def _parse(path, text, expected):
    """Parses `text` as the type `expected`, an annotation of a recipe field."""
    choices = _choices(expected)
    if str in choices:
        if text[:1] in ("'", '"'):  # as Python, and --print_recipe, writes it
            with contextlib.suppress(ValueError):
                text = literal(text)
        return None if types.NoneType in choices and text == "None" else text
    try:
        value = literal(text)
    except ValueError:
        value = text
    for given in (value, (value,)):  # one number stands for a tuple of one
        with contextlib.suppress(TypeError):
            return _converted(given, expected)
    raise UsageError(
        f"Recipe field {path} must be of type {type_name(expected)}. "
        f"Received: {text!r}."
    )


def _choices(annotation):
    is_union = isinstance(annotation, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def type_name(annotation) -> str:
    """Returns the type of a field as it is written, such as `float | None`."""
    return str(annotation) if typing.get_args(annotation) else annotation.__name__


def _converted(value, annotation):
    """Converts a value to the type of a field.

    Raises:
        TypeError: If it is not of this type and cannot be converted.
    """
    for choice in _choices(annotation):
        origin, inner = typing.get_origin(choice), typing.get_args(choice)
        if dataclasses.is_dataclass(choice) and isinstance(value, dict):
            return from_dict(choice, value)
        if origin is tuple and isinstance(value, (tuple, list)):
            kinds = inner[:1] * len(value) if inner[-1] is ... else inner
            if len(kinds) == len(value) and all(map(_is, value, kinds)):
                pairs = zip(kinds, value, strict=True)
                return tuple(kind(each) for kind, each in pairs)
        elif origin is dict and isinstance(value, dict):
            if all(_is(k, inner[0]) and _is(v, inner[1]) for k, v in value.items()):
                return value
        elif origin is None and _is(value, choice):
            return value if choice in (dict, types.NoneType) else choice(value)
    raise TypeError(f"expected {type_name(annotation)}, received {value!r:.100}")


def literal(text: str):
    """Parses a Python number, string, tuple, list, dict, set, bool or None.

    Raises:
        ValueError: If it is not one of these, or unreasonably large.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # from Python's parser
            value = ast.literal_eval(text)
        repr(value)  # fails for numbers of thousands of digits
    except (MemoryError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(str(error)) from error
    return value


def _is(value, kind):
    if kind is float and _is(value, int):
        return abs(value) < 2**1023
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def from_dict(kind: type, values: dict):
    """Creates a dataclass from a JSON dict; the inverse of `dataclasses.asdict`.

    Fields that are missing, as in files of an older version, get their defaults.

    Raises:
        TypeError: If a field without a default is missing, or has the wrong type.
        ValueError: If there is a field that this version does not have.
    """
    fields = typing.get_type_hints(kind)
    unknown = set(values) - set(fields)
    if unknown:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    arguments = {}
    for name in (field for field in fields if field in values):
        try:
            arguments[name] = _converted(values[name], fields[name])
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from error
    return kind(**arguments)
