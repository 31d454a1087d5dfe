"""The images of the plan: augmentation, changed test images, digits."""

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

PADDING = 2  # pixels by which training images are shifted
SQUARES, SIDE, GRAY = 4, 6, 128  # of the occlusion


def epoch(seed, number, count, batch_size):
    """Draws an epoch: the images of each step, their shifts, and which to mirror.

    Returns:
        Indices, vertical and horizontal shifts (0 to 2 * `PADDING`), and booleans, each
        (steps, batch_size). The images that do not fill a last batch are left out.
    """
    random, steps = np.random.default_rng((seed, number)), count // batch_size
    drawn = (
        random.permutation(count),
        *random.integers(2 * PADDING + 1, size=(2, count)),
        random.random(count) < 0.5,
    )
    return [values[: steps * batch_size].reshape(steps, batch_size) for values in drawn]


def augmented(images, order, top, left, mirrored):
    """Returns the images of a step; `images` are padded by `PADDING`. In JAX."""
    side = images.shape[1] - 2 * PADDING
    rows = top[:, None] + jnp.arange(side)
    columns = jnp.arange(side)
    columns = jnp.where(mirrored[:, None], columns[::-1], columns) + left[:, None]
    return images[order[:, None, None], rows[:, :, None], columns[:, None, :]]


def _clipped(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _occluded(images):
    random, occluded = np.random.default_rng(0), images.copy()
    corners = random.integers(
        images.shape[1] - SIDE + 1, size=(len(images), SQUARES, 2)
    )
    for image, places in zip(occluded, corners, strict=True):
        for top, left in places:
            image[top : top + SIDE, left : left + SIDE] = GRAY
    return occluded


def _rotated(images):
    return _clipped(
        scipy.ndimage.rotate(images, 15, axes=(1, 2), reshape=False, order=1)
    )


def _shifted(images):
    return np.pad(images, ((0, 0), (0, 0), (3, 0), (0, 0)))[:, :, :-3]


FORMULAS = {
    "brightness+25": lambda x: _clipped(x + 25.0),
    "brightness+50": lambda x: _clipped(x + 50.0),
    "brightness-25": lambda x: _clipped(x - 25.0),
    "contrast_x0.5": lambda x: _clipped((x - 128.0) * 0.5 + 128),
    "contrast_x0.25": lambda x: _clipped((x - 128.0) * 0.25 + 128),
    "gamma_0.5": lambda x: _clipped(255 * (x / 255) ** 0.5),
    "gamma_2": lambda x: _clipped(255 * (x / 255) ** 2.0),
    "inversion": lambda x: 255 - x,
}
OTHERS = {"occlusion": _occluded, "rotation_15": _rotated, "shift_3": _shifted}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images (1797, 28, 28, 1), uint8, and labels of scikit-learn's digits."""
    import sklearn.datasets

    data = sklearn.datasets.load_digits()
    factor = 28 / data.images.shape[1]
    zoomed = scipy.ndimage.zoom(
        data.images * (255 / 16),
        (1, factor, factor),
        order=1,
        grid_mode=True,
        mode="nearest",
    )
    return _clipped(zoomed)[..., np.newaxis], data.target


def rank_in_class(labels, random):
    """Returns the place of each image among those of its class, in random order."""
    order = random.permutation(len(labels))
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    return rank
