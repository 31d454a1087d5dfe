"""Decoding and geometry: resize and crop for evaluation; random part, shift and flip.

Every random function is stateless: equal seeds give equal images. Images are (H, W, C);
they keep their scale of 0 to 255 and become float32 where they are interpolated.
"""

import tensorflow as tf

DECODABLE = (1, 3)  # channels; of palettes with 4, TensorFlow decodes another alpha


def resize_and_crop(image, size: tuple[int, int], shorter_side: int | None = None):
    """The centre of a resized image (bilinear with antialias), in one interpolation.

    No more is computed than is kept, whatever the sides of the image. Lengths and
    offsets are rounded as torchvision does.

    Args:
        image: (H, W, C).
        size: height and width of the result.
        shorter_side: its length before the crop, at least that of `size`; `None`: as
            little as covers `size`.
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
        kernel_type="triangle",
        antialias=True,
    )
    return cropped[0]


def fit(image, shape: tuple[int, int, int], shorter_side: int | None = None):
    """A uint8 image of any size at the size that a network takes."""
    image = resize_and_crop(image, shape[:2], shorter_side)
    return tf.saturate_cast(tf.round(tf.ensure_shape(image, shape)), tf.uint8)


def decode(encoded, channels: int):
    """A JPEG or PNG as uint8 (H, W, channels); with 3 channels also a BMP or GIF."""
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def decode_random_part(encoded, channels: int, min_area: float, seed):
    """A random part of an encoded image, at least `min_area` of it; uint8.

    The aspect ratio is between 3/4 and 4/3, as in the published training. Of a JPEG no
    more than this part is decoded.
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
    """Moves the image by up to `pixels` in both directions, black outside."""
    shape = tf.shape(image)
    margin = (pixels, pixels)
    image = tf.pad(image, (margin, margin, (0, 0)))
    return tf.image.stateless_random_crop(image, shape, seed)


def random_flip(image, seed):
    """Mirrors half of the images."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def mixup(images, labels, alpha: float, seed):
    """Mixes every image of a batch with another one (Zhang et al. 2018), as published.

    lambda * x + (1 - lambda) * x[permutation], one lambda ~ Beta(alpha, alpha) and one
    permutation for the batch.

    Args:
        images: (N, H, W, C).
        labels: (N,).
        alpha: of the distribution, > 0.
        seed: two integers.

    Returns:
        Mixed images, labels, labels of the other images, and lambda, (N,): the loss is
        lambda * loss(labels) + (1 - lambda) * loss(others).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2,), seeds[0], alpha, dtype=tf.float64)
    share = tf.cast(gammas[0] / tf.reduce_sum(gammas), images.dtype)
    count = tf.shape(labels)[0]
    order = tf.argsort(tf.random.stateless_uniform((count,), seeds[1]))
    images = share * images + (1.0 - share) * tf.gather(images, order)
    return images, labels, tf.gather(labels, order), tf.fill((count,), share)
