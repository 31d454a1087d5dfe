"""What networks expect of an image, and what their outputs are called.

The published evaluation on ImageNet: shorter side to 256 pixels (bilinear with
antialias), centre crop of 224, (image / 255 - mean) / std.
"""

import dataclasses
import functools
import pathlib

import keras
import numpy as np
from keras import ops

from an_keras import arguments
from model_zoo.applications import ORIGINALS
from model_zoo.blocks import channel_axis
from model_zoo.registry import model_info, split_name
from model_zoo.weights import weight_set

LONGEST = 2**20  # pixels of a side after resizing
CLASS_NAMES_FILE = pathlib.Path(__file__).parent / "imagenet_classes.tsv"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How the images of a network are prepared.

    Attributes:
        mean, std: of the pixels on a scale of 0 to 1, one for each channel or one for
            all.
        crop: height and width after the centre crop, pixels.
        shorter_side: length that it is resized to before the crop, pixels.
        reverse_channels: whether the network takes BGR; mean and std are in that order.
        inside: whether the network takes images of 0 to 255 and rescales them itself.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    shorter_side: int
    reverse_channels: bool = False
    inside: bool = False

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset of images of 0 to 255, broadcast to their channels."""
        shape = (-1,) if channel_axis() == -1 else (-1, 1, 1)
        mean, std = (np.reshape(v, shape) for v in (self.mean, self.std))
        return (1 / (255 * std)).astype("float32"), (-mean / std).astype("float32")

    def description(self) -> str:
        """Of what the network sees, in words."""
        return describe(self.mean, self.std, self.reverse_channels)


def describe(
    mean: tuple[float, ...], std: tuple[float, ...], reverse_channels: bool
) -> str:
    """Such a preprocessing of pixels in words."""
    order = ", BGR" if reverse_channels else ""
    if (mean, std) == KERAS_MODES["none"]:
        return f"0 to 255 as they are{order}"
    mean, std = (", ".join(f"{value:.4g}" for value in each) for each in (mean, std))
    return f"mean {mean}; standard deviation {std} (of 0 to 1){order}"


IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=224, shorter_side=256
)
SMALL_IMAGES = Preprocessing(mean=(0.5,), std=(0.25,), crop=32, shorter_side=32)
# Modes of Keras Applications: mean and std on the scale of 0 to 1. "tf128" is the
# image / 128 - 1 in EfficientNetV2.
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
    """The preprocessing of a network, or of its weights: `"NAME"` or `"NAME.TAG"`.

    Args:
        name: of the network or its weights.
        channels: of its images; ConvNeXts of Keras rescale images of three only.
        include_preprocessing: the argument of the same name that some networks of
            Keras Applications are built with.

    Raises:
        ValueError: unknown name.
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
    """(images / 255 - mean) / std: what the network takes.

    For a network of `model_zoo.applications` and RGB images the result is that of the
    original's `preprocess_input`, which makes them BGR for some.

    Args:
        images: (..., H, W, channels), or (..., channels, H, W) if that is Keras' image
            data format; numbers from 0 to 255, any size.
        name: of the network, `"resnet50_an"`, or of weights,
            `"resnet20_an.fashion_mnist"`.

    Returns:
        float32 of the same shape; a NumPy array if `images` is one.

    Raises:
        ValueError: unknown name, images without channels, or another number of them
            than means, where the network has several.
    """
    images = images if hasattr(images, "shape") else np.asarray(images)
    axis = -1 if channel_axis() == -1 else -3
    channels = images.shape[axis] if len(images.shape) >= 3 else 0
    how = preprocessing(name, channels=channels)
    if not channels or len(how.mean) not in (1, channels):
        raise ValueError(
            f"`images` must be (..., H, W, {len(how.mean)}) for {name}. "
            f"Received: shape {tuple(images.shape)}."
        )
    scale, offset = how.affine()
    outputs = ops.cast(images, "float32")
    if how.reverse_channels:
        outputs = ops.flip(outputs, axis=axis)
    outputs = outputs * scale + offset
    return ops.convert_to_numpy(outputs) if isinstance(images, np.ndarray) else outputs


def resize_and_crop(images, shorter_side: int = 256, crop: int = 224):
    """Resizes the shorter side, then cuts out the centre, in one interpolation.

    Bilinear with antialias; sizes and offsets are rounded as torchvision does. Values
    stay on their scale and are not rounded.

    Args:
        images: (H, W, C) or (N, H, W, C), in Keras' image data format, numbers.
        shorter_side: its length before the crop, pixels, from `crop` to 2^20.
        crop: height and width of the outputs, pixels.

    Returns:
        float32 (crop, crop, C) or (N, crop, crop, C).

    Raises:
        TypeError: sizes that are no integers.
        ValueError: another rank, images without pixels, or a crop larger than the image
            that it is cut out of.
    """
    _check_sizes(shorter_side, crop)
    if isinstance(images, keras.KerasTensor):
        return ResizeAndCrop(shorter_side, crop)(images)
    images = images if hasattr(images, "shape") else np.asarray(images)
    rank = len(images.shape)
    if rank not in (3, 4):
        raise ValueError(
            f"`images` must be of rank 3 or 4. Received: shape {tuple(images.shape)}."
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
    """For each axis: the pixels that the crop needs, their scale and translation.

    In whole numbers, which do not overflow: Python's, or int64 for sizes that only a
    graph of TensorFlow knows.
    """
    is_known = all(isinstance(size, int) for size in sizes)
    smallest, largest, half, ratio = _ARITHMETIC[is_known]
    if not is_known:
        sizes = [ops.cast(size, "int64") for size in sizes]
    shortest = smallest(*sizes)
    for size in sizes:
        resized = shorter_side * size // shortest
        offset = half(resized - crop)
        margin = size // resized + 2  # of the antialiasing filter
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


_ARITHMETIC = {  # smaller, larger, rounded half, ratio: of known sizes, of a graph's
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
    """Resize, crop and normalization of a network: images of 0 to 255 -> its input.

    (N, H, W, C) of any size -> (N, crop, crop, C), float32.

    Raises:
        ValueError: unknown name.
    """
    how = preprocessing(name)
    scale, offset = (array.tolist() for array in how.affine())
    layers = [ResizeAndCrop(how.shorter_side, how.crop, name="resize_and_crop")]
    if how.reverse_channels:
        images = keras.Input((None, None, None))
        flipped = ops.flip(images, axis=channel_axis())
        layers.append(keras.Model(images, flipped, name="reverse_channels"))
    normalize = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalize")
    return keras.Sequential([*layers, normalize], name="preprocessing")


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """(WordNet id, name) of the 1000 classes of ImageNet-1k, in their order."""
    lines = CLASS_NAMES_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(tuple(line.split("\t")) for line in lines)


def decode_predictions(predictions, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The likeliest classes of ImageNet for each image, without a download.

    Args:
        predictions: (N, 1000) probabilities or logits.
        top: how many, 1 to 1000.

    Returns:
        For each image `top` times (WordNet id, name, score), the best first.

    Raises:
        TypeError: `top` is no integer.
        ValueError: another shape, or `top` outside of its range.
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
