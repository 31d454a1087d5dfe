"""Decoding, resizing and cropping; random part, shift and flip; mixup.

Every random function is stateless: equal seeds give equal images. Images are (H, W, C);
they keep their scale of 0 to 255 and become float32 where they are interpolated.
"""

import tensorflow as tf

KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
DECODABLE = (1, 3)  # channels; with 4, the alpha of palettes is decoded differently


def resize_and_crop(
    image,
    size: tuple[int, int],
    shorter_side: int | None = None,
    interpolation: str = "bilinear",
):
    """Resizes with antialias and crops the centre, in one interpolation.

    Only the pixels that are kept are computed, whatever the sides of the image. Lengths
    and offsets are rounded as in torchvision. This package does not import Keras;
    `model_zoo.preprocessing.resize_and_crop` is the same for bilinear squares, on any
    backend.

    Args:
        image: Image (H, W, C).
        size: Height and width of the result.
        shorter_side: Length of the shorter side before the crop, at least that of
            `size`. `None` selects the smallest length that covers `size`.
        interpolation: `"bilinear"` or `"bicubic"`.
    """
    shape = tf.cast(tf.shape(image)[:2], tf.int64)
    height, width = (tf.constant(length, tf.int64) for length in size)
    if shorter_side is not None:
        numerator, denominator = shorter_side, tf.reduce_min(shape)
    else:
        by_height = height * shape[1] >= width * shape[0]
        numerator = tf.where(by_height, height, width)
        denominator = tf.where(by_height, shape[0], shape[1])
    resized = numerator * shape // denominator
    offset = tf.round(tf.cast(resized - tf.stack([height, width]), tf.float32) / 2)
    cropped = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=size,
        scale=tf.cast(resized, tf.float32) / tf.cast(shape, tf.float32),
        translation=-offset,
        kernel_type=KERNELS[interpolation],
        antialias=True,
    )
    return cropped[0]


def to_input_size(
    image,
    shape: tuple[int, int, int],
    shorter_side: int | None = None,
    interpolation: str = "bilinear",
):
    """Resizes and crops a uint8 image of any size to the input size of a network."""
    image = resize_and_crop(image, shape[:2], shorter_side, interpolation)
    return tf.saturate_cast(tf.round(tf.ensure_shape(image, shape)), tf.uint8)


def decode_and_resize(
    encoded,
    shape: tuple[int, int, int],
    shorter_side: int | None = None,
    interpolation: str = "bilinear",
):
    """Converts an encoded image of any size to the uint8 input of a network."""
    return to_input_size(decode(encoded, shape[-1]), shape, shorter_side, interpolation)


def decode(encoded, channels: int):
    """Decodes to uint8 (H, W, channels): JPEG, PNG and, with 3 channels, BMP or GIF."""
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def decode_random_part(encoded, channels: int, min_area: float, seed):
    """Decodes a random part of an image, at least `min_area` of it, to uint8.

    The aspect ratio is between 3/4 and 4/3, as in the published training. For a JPEG,
    only this part is decoded.
    """

    def box(shape):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            bounding_boxes=tf.zeros((1, 0, 4)),
            seed=seed,
            area_range=(min_area, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            use_image_if_no_bounding_boxes=True,
        )
        return begin, extent

    def jpeg():
        begin, extent = box(tf.io.extract_jpeg_shape(encoded))
        window = tf.concat([begin[:2], extent[:2]], axis=0)
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=channels)

    def other():
        image = decode(encoded, channels)
        return tf.slice(image, *box(tf.shape(image)))

    if channels not in (1, 3):
        return other()
    return tf.cond(tf.io.is_jpeg(encoded), jpeg, other)


def random_shift(image, pixels: int, seed):
    """Shifts the image by up to `pixels` in both directions and fills with black."""
    shape = tf.shape(image)
    margin = (pixels, pixels)
    image = tf.pad(image, (margin, margin, (0, 0)))
    return tf.image.stateless_random_crop(image, shape, seed)


def random_flip(image, seed):
    """Mirrors the image with a probability of 1/2."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def mixup(images, labels, alpha: float, seed, from_end: bool = False):
    """Mixes every image of a batch with another one (Zhang et al. 2018), as published.

    lambda * x + (1 - lambda) * x[permutation], with one lambda ~ Beta(alpha, alpha) and
    one permutation for the batch.

    Args:
        images: Images (N, H, W, C) with values of 0 to 255.
        labels: Labels (N,).
        alpha: Parameter of the Beta distribution, > 0.
        seed: Two integers.
        from_end: Whether the permutation is the reversed order, and the mixed values
            are rounded.

    Returns:
        Mixed images in float32, labels, labels of the other images, and lambda, (N,).
        The loss is lambda * loss(labels) + (1 - lambda) * loss(others).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2,), seeds[0], alpha, dtype=tf.float64)
    lam = tf.cast(gammas[0] / tf.reduce_sum(gammas), tf.float32)
    count = tf.shape(labels)[0]
    order = tf.argsort(tf.random.stateless_uniform((count,), seeds[1]))
    if from_end:
        order = tf.range(count)[::-1]
    images = tf.cast(images, tf.float32)
    images = lam * images + (1.0 - lam) * tf.gather(images, order)
    if from_end:
        images = tf.round(images)
    return images, labels, tf.gather(labels, order), tf.fill((count,), lam)
