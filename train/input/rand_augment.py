"""RandAugment (Cubuk et al. 2020): the Model Garden's operations, drawn statelessly.

The Garden's own `RandAugment` draws from TensorFlow's global generator, so that a run
which goes on would see other images than one that was never stopped.
"""

import functools

import tensorflow as tf

OPERATIONS_IN_TURN = 2
GREY = (128, 128, 128)


@functools.cache
def operations() -> tuple:
    """The 14 operations of the paper: image, level from 0 to 1, sign -> image.

    At level 0 an operation with a level does nothing; at level 1 it is as strong as in
    the paper. `sign`, -1 or 1, is its direction.
    """
    from official.vision.ops import augment as garden  # takes seconds

    def pixels(image, level, sign):
        width = tf.cast(tf.shape(image)[1], tf.float32)
        return sign * tf.round(0.45 * level * width)

    return (
        lambda image, level, sign: image,
        lambda image, level, sign: garden.autocontrast(image),
        lambda image, level, sign: garden.equalize(image),
        lambda image, level, sign: garden.wrapped_rotate(
            image, 30.0 * level * sign, GREY
        ),
        lambda image, level, sign: (  # below the threshold: all but white at level 0
            garden.solarize(image, tf.cast(255.0 * (1.0 - level), tf.uint8))
            if level
            else image
        ),
        lambda image, level, sign: garden.posterize(
            image, tf.cast(8.0 - tf.round(4.0 * level), tf.uint8)
        ),
        lambda image, level, sign: garden.color(image, 1.0 + 0.9 * level * sign),
        lambda image, level, sign: garden.contrast(image, 1.0 + 0.9 * level * sign),
        lambda image, level, sign: garden.brightness(image, 1.0 + 0.9 * level * sign),
        lambda image, level, sign: garden.sharpness(image, 1.0 + 0.9 * level * sign),
        lambda image, level, sign: garden.shear_x(image, 0.3 * level * sign, GREY),
        lambda image, level, sign: garden.shear_y(image, 0.3 * level * sign, GREY),
        lambda image, level, sign: garden.translate_x(
            image, pixels(image, level, sign), GREY
        ),
        lambda image, level, sign: garden.translate_y(
            image, pixels(image, level, sign), GREY
        ),
    )


def rand_augment(image, magnitude: float, seed):
    """Two operations in turn, each one of 14 with equal probability.

    Args:
        image: uint8 (H, W, 3).
        magnitude: M of the paper, from 0 to 10.
        seed: two integers.

    Returns:
        uint8 (H, W, 3).
    """
    shape, level = image.shape, magnitude / 10.0
    for turn in tf.unstack(
        tf.random.experimental.stateless_split(seed, OPERATIONS_IN_TURN)
    ):
        branches = [
            functools.partial(operation, image, level, sign)
            for operation in operations()
            for sign in (-1.0, 1.0)
        ]
        chosen = tf.random.stateless_uniform(
            (), turn, maxval=len(branches), dtype=tf.int32
        )
        image = tf.ensure_shape(tf.switch_case(chosen, branches), shape)
    return image
