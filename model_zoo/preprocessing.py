"""Preprocessing of the images for a network, and names of its outputs.

The published evaluation on ImageNet resizes the shorter side to 256 pixels (bilinear
with antialiasing), crops the centre to 224 pixels and computes
(image / 255 - mean) / std.
"""

import dataclasses
import functools
import pathlib

import keras
import numpy as np
from keras import ops

from an_keras import arguments
from model_zoo.blocks import channel_axis
from model_zoo.keras_applications import ORIGINALS
from model_zoo.registry import model_info, split_name
from model_zoo.weight_sets import weight_set

LONGEST = 2**20  # pixels of a side after resizing
CLASS_NAMES_FILE = pathlib.Path(__file__).parent / "imagenet_classes.tsv"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of the images of a network.

    Attributes:
        mean, std: Mean and standard deviation of the pixels on a scale of 0 to 1, one
            for each channel or one for all.
        crop: Height and width after the centre crop, in pixels.
        shorter_side: Length of the resized shorter side before the crop, in pixels.
        reverse_channels: Whether the network takes BGR; mean and std are in that order.
        inside: Whether the network takes images of 0 to 255 and rescales them itself.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    shorter_side: int
    reverse_channels: bool = False
    inside: bool = False

    def description(self) -> str:
        """Describes in words what the network receives."""
        return describe(self.mean, self.std, self.reverse_channels)


def affine(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and offset for images of 0 to 255, broadcast to channels."""
    shape = (-1,) if channel_axis() == -1 else (-1, 1, 1)
    mean, std = (np.reshape(v, shape) for v in (mean, std))
    return (1 / (255 * std)).astype("float32"), (-mean / std).astype("float32")


def standardize(
    images,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    reverse_channels: bool = False,
):
    """Computes (images / 255 - mean) / std, float32.

    Args:
        images: Tensor or `KerasTensor` of numbers from 0 to 255, in Keras' image data
            format.
        mean, std, reverse_channels: As in `Preprocessing`.
    """
    if reverse_channels:
        images = ops.flip(images, axis=-1 if channel_axis() == -1 else -3)
    scale, offset = affine(mean, std)
    return ops.cast(images, "float32") * scale + offset


def describe(
    mean: tuple[float, ...], std: tuple[float, ...], reverse_channels: bool
) -> str:
    """Describes a preprocessing of pixels in words."""
    order = ", BGR" if reverse_channels else ""
    if (mean, std) == KERAS_MODES["none"]:
        return f"0 to 255 as they are{order}"
    mean, std = (", ".join(f"{value:.4g}" for value in each) for each in (mean, std))
    return f"mean {mean}; standard deviation {std} (of 0 to 1){order}"


IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=224, shorter_side=256
)
SMALL_IMAGES = Preprocessing(mean=(0.5,), std=(0.25,), crop=32, shorter_side=32)
# Modes of Keras Applications: mean and std on the scale of 0 to 1. "tf128" is
# image / 128 - 1, as in EfficientNetV2.
KERAS_MODES = {
    "caffe": ((103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255,) * 3),
    "tf": ((0.5,), (0.5,)),
    "tf128": ((128 / 255,), (128 / 255,)),
    "torch": (IMAGENET.mean, IMAGENET.std),
    "none": ((0.0,), (1 / 255,)),
}


def preprocessing(
    name: str, *, channels: int = 3, include_preprocessing: bool = True
) -> Preprocessing:
    """Returns the preprocessing of a network `"NAME"` or of its weights `"NAME.TAG"`.

    Args:
        name: Name of the network or of its weights.
        channels: Channels of the images. Keras' ConvNeXts rescale only images with
            three.
        include_preprocessing: The argument of the same name of some networks of Keras
            Applications.

    Raises:
        ValueError: If the name is unknown.
    """
    info = model_info(name)
    name, tag = split_name(name)
    if name in ORIGINALS:
        family, size = ORIGINALS[name]
        inside = family.has_preprocessing(channels, include_preprocessing)
        mode = family.mode
        if mode == "none" and not inside:
            mode = family.mode_without or mode
        shorter_side, bgr = round(size / 0.875), mode == "caffe"
        return Preprocessing(*KERAS_MODES[mode], size, shorter_side, bgr, inside)
    if tag:
        record = weight_set(name, tag)
        size = record.input_shape[0]
        return Preprocessing(record.mean, record.std, crop=size, shorter_side=size)
    return IMAGENET if info.classes == 1000 else SMALL_IMAGES


def preprocess_input(images, name: str):
    """Computes the input of a network, (images / 255 - mean) / std.

    For a network of `model_zoo.applications` and RGB images, the result is that of the
    original's `preprocess_input`, which converts to BGR for some networks.

    Args:
        images: Images of any size, numbers from 0 to 255: (..., H, W, channels), or
            (..., channels, H, W) if that is Keras' image data format.
        name: Name of the network, `"resnet50_an"`, or of weights,
            `"resnet20_an.fashion_mnist"`.

    Returns:
        float32 of the same shape; a NumPy array if `images` is one.

    Raises:
        ValueError: If the name is unknown, the images have no channels, or the number
            of channels differs from that of the means where the network has several.
    """
    images = images if hasattr(images, "shape") else np.asarray(images)
    axis = -1 if channel_axis() == -1 else -3
    channels = images.shape[axis] if len(images.shape) >= 3 else 0
    expected = preprocessing(name, channels=channels)
    if not channels or len(expected.mean) not in (1, channels):
        raise ValueError(
            f"`images` must be (..., H, W, {len(expected.mean)}) for {name}. "
            f"Received: shape {tuple(images.shape)}."
        )
    outputs = standardize(
        images, expected.mean, expected.std, expected.reverse_channels
    )
    return ops.convert_to_numpy(outputs) if isinstance(images, np.ndarray) else outputs


def resize_and_crop(images, shorter_side: int = 256, crop: int = 224):
    """Resizes the shorter side and crops the centre, in one interpolation.

    The interpolation is bilinear with antialiasing. Sizes and offsets are rounded as in
    torchvision. Values keep their scale and are not rounded.

    Args:
        images: Numbers, (H, W, C) or (N, H, W, C) in Keras' image data format.
        shorter_side: Length of the shorter side before the crop, in pixels, from `crop`
            to 2^20.
        crop: Height and width of the outputs, in pixels.

    Returns:
        float32 (crop, crop, C) or (N, crop, crop, C).

    Raises:
        TypeError: If the sizes are not integers.
        ValueError: If the rank is wrong, the images have no pixels, or the crop is
            larger than the resized image.
    """
    _check_sizes(shorter_side, crop)
    if isinstance(images, keras.KerasTensor):
        return ResizeAndCrop(shorter_side, crop)(images)
    images = images if hasattr(images, "shape") else np.asarray(images)
    rank = len(images.shape)
    if rank not in (3, 4):
        raise ValueError(
            f"`images` must have rank 3 or 4. Received: shape {tuple(images.shape)}."
        )
    axes = (rank - 3, rank - 2) if channel_axis() == -1 else (rank - 2, rank - 1)
    if 0 in (images.shape[axis] for axis in axes):
        raise ValueError(
            "`images` must have a height and a width. "
            f"Received: shape {tuple(images.shape)}."
        )
    window, scale, translation = zip(
        *_windows([ops.shape(images)[axis] for axis in axes], shorter_side, crop),
        strict=True,
    )
    all_channels = (slice(None),) if channel_axis() == -1 else ()
    images = images[(..., *window, *all_channels)]
    shape = ops.shape(images)
    output_shape = [crop if axis in axes else shape[axis] for axis in range(rank)]
    return ops.image.scale_and_translate(
        ops.cast(images, "float32"),
        tuple(output_shape),
        scale=ops.stack(scale),
        translation=ops.stack(translation),
        spatial_dims=axes,
        method="linear",
        antialias=True,
    )


def _windows(sizes, shorter_side, crop):
    """Yields for each axis the pixels that the crop needs, their scale and translation.

    Computes in integers that do not overflow: Python's, or int64 for sizes known only
    in a TensorFlow graph.
    """
    is_known = all(isinstance(size, int) for size in sizes)
    smallest, largest, half, ratio = _ARITHMETIC[is_known]
    if not is_known:
        sizes = [ops.cast(size, "int64") for size in sizes]
    shortest = smallest(*sizes)
    for size in sizes:
        resized = shorter_side * size // shortest
        offset = half(resized - crop)
        margin = size // resized + 2  # for the antialiasing filter
        first = largest(offset * size // resized - margin, 0)
        last = smallest((offset + crop) * size // resized + margin, size)
        scale = ratio(resized, size)
        translation = ratio(first * resized - offset * size, size)
        yield (
            slice(first, last),
            *(ops.cast(each, "float32") for each in (scale, translation)),
        )


def _float64(number):
    return ops.cast(number, "float64")


_ARITHMETIC = {  # minimum, maximum, rounded half, ratio: known sizes, graphs
    True: (min, max, lambda n: round(n / 2), lambda n, m: n / m),
    False: (
        ops.minimum,
        ops.maximum,
        lambda n: ops.cast(ops.round(_float64(n) / 2), "int64"),
        lambda n, m: _float64(n) / _float64(m),
    ),
}


def _check_sizes(shorter_side, crop):
    arguments.require_integer("shorter_side", shorter_side)
    arguments.require_integer("crop", crop)
    if shorter_side > LONGEST:
        raise ValueError(
            f"`shorter_side` must be at most {LONGEST}. "
            f"Received: shorter_side={shorter_side!r:.30}."
        )
    if not 1 <= crop <= shorter_side:
        raise ValueError(
            "`crop` must be from 1 to `shorter_side`. "
            f"Received: crop={crop}, shorter_side={shorter_side}."
        )


@keras.saving.register_keras_serializable(package="model_zoo")
class ResizeAndCrop(keras.layers.Layer):
    """`resize_and_crop` as a layer: (N, H, W, C) -> (N, crop, crop, C), float32."""

    def __init__(self, shorter_side: int = 256, crop: int = 224, **kwargs):
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        _check_sizes(shorter_side, crop)
        self.shorter_side = shorter_side
        self.crop = crop

    def call(self, images):
        return resize_and_crop(images, self.shorter_side, self.crop)

    def compute_output_shape(self, images_shape):
        crop = [self.crop, self.crop]
        if channel_axis() == -1:
            return (*images_shape[:-3], *crop, images_shape[-1])
        return (*images_shape[:-2], *crop)

    def get_config(self):
        config = {"shorter_side": self.shorter_side, "crop": self.crop}
        return {**super().get_config(), **config}


def preprocessing_layers(name: str) -> keras.Sequential:
    """Returns the resize, crop and normalization of a network as layers.

    They map images of 0 to 255, (N, H, W, C) of any size, to the input of the network,
    (N, crop, crop, C), float32.

    Raises:
        ValueError: If the name is unknown.
    """
    expected = preprocessing(name)
    scale, offset = (array.tolist() for array in affine(expected.mean, expected.std))
    layers = [
        ResizeAndCrop(expected.shorter_side, expected.crop, name="resize_and_crop")
    ]
    if expected.reverse_channels:
        images = keras.Input((None, None, None))
        flipped = ops.flip(images, axis=channel_axis())
        layers.append(keras.Model(images, flipped, name="reverse_channels"))
    normalize = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalize")
    return keras.Sequential([*layers, normalize], name="preprocessing")


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Returns (WordNet id, name) of the 1000 classes of ImageNet-1k, in order."""
    lines = CLASS_NAMES_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split("\t")) for line in lines)


def decode_predictions(predictions, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Returns the most likely ImageNet classes of each image, without a download.

    Args:
        predictions: Probabilities or logits, (N, 1000).
        top: Number of classes to return, 1 to 1000.

    Returns:
        For each image, a list of `top` tuples (WordNet id, name, score), best first.

    Raises:
        TypeError: If `top` is not an integer.
        ValueError: If the shape is wrong or `top` is out of range.
    """
    predictions = ops.convert_to_numpy(predictions)
    classes = imagenet_classes()
    if predictions.ndim != 2 or predictions.shape[1] != len(classes):
        raise ValueError(
            f"`predictions` must be (N, {len(classes)}). "
            f"Received: shape {predictions.shape}."
        )
    arguments.require_integer("top", top)
    if not 1 <= top <= len(classes):
        raise ValueError(f"`top` must be from 1 to {len(classes)}. Received: {top}.")
    best = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[i], float(scores[i])) for i in indices]
        for indices, scores in zip(best, predictions, strict=True)
    ]
