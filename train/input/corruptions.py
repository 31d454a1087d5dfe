"""The corruptions of ImageNet-C for any image, by the functions of tensorflow-datasets.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, ICLR 2019; `tensorflow_datasets.image_classification.corruptions`
made `imagenet2012_corrupted` with the same functions.

Left out are motion blur, snow and frost, which need ImageMagick or files to download.
"""

import warnings

import numpy as np
import tensorflow as tf
from tensorflow_datasets.image_classification import corruptions

from train.cli import RunError

SEVERITIES = (1, 2, 3, 4, 5)
NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    *("defocus_blur", "glass_blur", "zoom_blur", "gaussian_blur"),
    *("fog", "brightness", "contrast", "saturate"),
    *("elastic_transform", "pixelate", "jpeg_compression", "spatter"),
)
LEAST = 4  # pixels of a side
SIDE = 224  # pixels of the images that the severities were chosen for
# Those with lengths in pixels: smaller images are enlarged to `SIDE` for them.
WITH_LENGTHS = (
    *("defocus_blur", "glass_blur", "gaussian_blur"),
    *("fog", "elastic_transform", "spatter"),
)
IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)  # share of the pixels by severity


def corrupt(image: np.ndarray, name: str, severity: int, seed) -> np.ndarray:
    """Corrupts an image; equal seeds give equal images.

    Args:
        image: uint8 (H, W, C), with 1 or 3 channels. One channel is corrupted as the
            first of three equal ones.
        name: One of `NAMES`.
        severity: 1 to 5.
        seed: Integers of at least 0.

    Returns:
        uint8, of the same shape. Images whose shorter side is below 224 are enlarged to
        it and reduced again where a corruption has lengths in pixels, so that they are
        relative to the image as on ImageNet.

    Raises:
        RunError: If a side has fewer than 4 pixels.
    """
    shape = image.shape
    if min(shape[:2]) < LEAST:
        raise RunError(
            f"Corruptions are for images with sides of at least {LEAST} pixels. "
            f"Received: {shape[0]}x{shape[1]}."
        )
    seen = np.repeat(image, 3, axis=-1) if shape[-1] == 1 else image
    enlarges = name in WITH_LENGTHS and min(shape[:2]) < SIDE
    if enlarges:
        seen = _resized(seen, [side * SIDE // min(shape[:2]) for side in shape[:2]])
    state = np.random.get_state()  # the functions draw from NumPy's global generator
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            if name == "impulse_noise":
                corrupted = _impulse_noise(seen, severity, seed)
            else:
                corrupted = getattr(corruptions, name)(seen, severity)
    finally:
        np.random.set_state(state)
    if enlarges:
        corrupted = _resized(corrupted, shape[:2])
    return corrupted[..., : shape[-1]].astype(np.uint8)


def _resized(image, size):
    resized = tf.image.resize(image, size, antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8).numpy()


def _impulse_noise(image, severity, seed):
    """As `corruptions.impulse_noise`, whose generator cannot be seeded."""
    import skimage.util

    noisy = skimage.util.random_noise(
        image / 255,
        mode="s&p",
        amount=IMPULSES[severity - 1],
        rng=np.random.default_rng(seed),
    )
    return np.around(noisy * 255)
