"""The source of an export: a network, its weights, images and class names."""

import dataclasses
import functools
import hashlib
import os
import pathlib

import keras
import tensorflow as tf
from keras import ops

import an_keras
import model_zoo
from an_keras import fold_for_inference
from an_keras.inference import attentive_layers
from model_zoo import preprocessing
from model_zoo.weight_sets import tags, verified_file, weight_set
from model_zoo.weights import classes_in
from train.cli import UsageError
from train.engine import checkpoint, models, run_directory
from train.export import copies
from train.input import augment

CHECKPOINTS = {
    "best": models.load_best,
    "last": functools.partial(models.load_last, averaged=False),
    "average": functools.partial(models.load_last, averaged=True),
}


LARGEST = 2**14  # height and width of images, as in recipes
# Arguments of create_model that follow from the weights or do not fit a classifier.
RESERVED = {
    *("classes", "classifier_activation", "include_top"),
    *("input_tensor", "pooling", "weights"),
}


@dataclasses.dataclass(frozen=True)
class ImageClassifier:
    """A network, its images and its labels.

    Attributes:
        model: The network, standardized images -> logits (N, classes).
        version: Version number of the export.
        shape: (height, width, channels) of its input images.
        shorter_side: Length in pixels to which the shorter side of other images is
            resized before the centre crop. `None` selects the smallest that covers
            `shape`.
        interpolation: `"bilinear"` or `"bicubic"`, for this resizing.
        mean, std: Statistics of the pixels on a scale of 0 to 1. The network receives
            (image / 255 - mean) / std.
        reverse_channels: Whether the network takes BGR; `mean` and `std` are in that
            order.
        class_names: One name for each class.
        card: Further contents of `model.json`.
    """

    model: keras.Model
    version: int
    shape: tuple[int, int, int]
    shorter_side: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reverse_channels: bool
    class_names: tuple[str, ...]
    card: dict
    interpolation: str = "bilinear"

    @property
    def precision(self) -> str:
        """The dtype policy of the layers; that of a model is lost when it is copied."""
        return next(
            layer for layer in self.model.layers if layer.weights
        ).dtype_policy.name

    @property
    def is_attentive(self) -> bool:
        return bool(attentive_layers(self.model))

    def description(self) -> dict:
        """Returns `model.json`: what the export is, its origin and its accuracy."""
        seen = (
            *("shape", "shorter_side", "interpolation"),
            *("mean", "std", "reverse_channels"),
        )
        versions = {"an_keras": an_keras.__version__, "keras": keras.__version__}
        return self.card | {
            "version": self.version,
            "precision": self.precision,
            "preprocessing": {name: getattr(self, name) for name in seen},
            "class_names": self.class_names,
            "versions": versions | {"tensorflow": tf.__version__},
        }

    def standardize(self, images):
        """Converts uint8 (N, H, W, C) to the float32 input of the network."""
        return preprocessing.standardize(
            images, self.mean, self.std, self.reverse_channels
        )

    @functools.cached_property
    def logits(self):
        """A function of uint8 images (N, H, W, C) that returns logits (N, classes)."""
        images = tf.TensorSpec((None, *self.shape), tf.uint8)
        return tf.function(
            lambda images: self.model(self.standardize(images), training=False),
            input_signature=[images],
        )

    def decode_and_resize(self, encoded):
        """Converts JPEG or PNG of any size to uint8 `shape`, as in evaluation."""
        return augment.decode_and_resize(
            encoded, self.shape, self.shorter_side, self.interpolation
        )

    def network(self, fold: bool, precision: str | None = None) -> keras.Model:
        """Returns the model, or a copy if it is folded or its precision changes."""
        model = copies.with_plain_layers(self.model)
        if precision and precision != self.precision:
            model = copies.with_precision(model, precision)
        return fold_for_inference(model) if fold and self.is_attentive else model

    def serving_model(self, network: keras.Model) -> keras.Model:
        """Returns a model that includes the preprocessing and a softmax.

        It maps `images` uint8 (N, H, W, C) -> {"probabilities": float32 (N, classes)}.
        """
        images = keras.Input(self.shape, dtype="uint8", name="images")
        softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
        probabilities = softmax(network(self.standardize(images)))
        return keras.Model(images, {"probabilities": probabilities})

    def feature_model(self, network: keras.Model) -> keras.Model:
        """Returns a model of the classifier's input, {"features": float32 (N, D)}."""
        seen = models.head(network).input
        if len(seen.shape) == 4:  # the classifier is a 1x1 convolution
            seen = keras.layers.GlobalAveragePooling2D()(seen)
        inner = keras.Model(network.inputs, seen)
        images = keras.Input(self.shape, dtype="uint8", name="images")
        outputs = ops.cast(inner(self.standardize(images)), "float32")
        return keras.Model(images, {"features": outputs})


def of_run(workdir: pathlib.Path, which: str = "best") -> ImageClassifier:
    """Loads the `"best"` or `"last"` weights of a run, or the `"average"` of the last.

    Raises:
        UsageError, RunError: If the run has no such weights.
    """
    model, spec, step = CHECKPOINTS[which](workdir)
    settings = spec.recipe.data
    card = {
        "model": spec.recipe.model.name,
        "options": spec.recipe.model.options,
        "data": settings.name,
        "weights": which,
        "step": step,
        "sha256": checkpoint.network_digest(model),
        "data_settings": vars(settings),
        "data_fingerprint": spec.fingerprint,
        "test": _test_results(workdir, step) if which == "best" else None,
    }
    return ImageClassifier(
        model,
        version=step,
        shape=spec.shape,
        shorter_side=settings.shorter_side,
        interpolation=settings.interpolation,
        mean=settings.mean,
        std=settings.std,
        reverse_channels=settings.reverse_channels,
        class_names=spec.class_names,
        card=card,
    )


def _test_results(workdir, step):
    """Returns the results of these weights, or `None` if they were not tested."""
    if not (workdir / "results.json").exists():
        return None
    results = run_directory.read_results(workdir)
    return results if results["step"] == step else None


def of_network(
    name: str,
    weights: str,
    options: dict,
    class_names: tuple[str, ...] = (),
    version: int = 1,
) -> ImageClassifier:
    """Builds a network of the zoo with weights from a file.

    Args:
        name: Name of the network, for `model_zoo.create_model`.
        weights: A `.weights.h5` file that includes the classifier, or a tag.
        options: Further arguments of `create_model`.
        class_names: One name for each class. Empty selects those of the tag, or of
            ImageNet-1k.
        version: Version number of the export.

    Raises:
        UsageError: If there is no such network, or the weights do not fit it.
        RunError: If it does not fit into memory.
    """
    reserved = RESERVED & set(options)
    if reserved:
        raise UsageError(
            f"Expected --options without {', '.join(sorted(RESERVED))}, which an "
            f"export sets. Received: {', '.join(sorted(reserved))}."
        )
    is_tag = weights in tags(name)
    record = weight_set(name, weights) if is_tag else None
    with models.building(name):
        path = verified_file(name, weights) if is_tag else weights
        if record:
            options = {"input_shape": record.input_shape, **options}
        model = _with_weights(name, path, options)
        models.require_name_for_graphs(model)
        expected = preprocessing.preprocessing(
            f"{name}.{weights}" if is_tag else name,
            channels=model.input_shape[-1],
            include_preprocessing=options.get("include_preprocessing", True),
        )
    classes = model.output_shape[-1]
    if not class_names and record:
        class_names = record.class_names
    elif not class_names and classes == len(preprocessing.imagenet_classes()):
        class_names = tuple(label for _, label in preprocessing.imagenet_classes())
    if len(class_names) != classes:
        raise UsageError(
            f"Expected --labels=FILE with the names of {classes} classes, one per "
            f"line. Received: {len(class_names)} names."
        )
    height, width, channels = model.input_shape[1:]
    if None in (height, width) or max(height, width) > LARGEST:
        raise UsageError(
            f"An export needs a fixed image size, at most {LARGEST} pixels a side. "
            "Expected an input_shape in --options. "
            f"Received: {model.input_shape[1:]}."
        )
    if len(expected.mean) not in (1, channels):
        raise UsageError(
            f"The preprocessing of {name} is for {len(expected.mean)} channels. "
            f"Received: images with {channels}."
        )
    is_square = height == width
    return ImageClassifier(
        model,
        version,
        shape=(height, width, channels),
        shorter_side=expected.shorter_side * height // expected.crop
        if is_square
        else None,
        mean=expected.mean,
        std=expected.std,
        reverse_channels=expected.reverse_channels,
        class_names=class_names,
        card={
            "model": name,
            "options": options,
            "weights": os.path.basename(weights),
            "sha256": hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest(),
            "metrics": record.metrics if record else None,
            "test": None,
        },
    )


def _with_weights(name, path, options):
    """Returns the network with the file's number of classes and logits as output."""
    head_name = models.head(model_zoo.create_model(name, **options)).name
    classes = classes_in(path, head_name)
    if not classes:
        raise ValueError(f"an export needs a classifier. Received: none in {path}.")
    return model_zoo.create_model(
        name,
        **options,
        weights=os.fspath(path),
        classes=classes,
        classifier_activation=None,
    )
