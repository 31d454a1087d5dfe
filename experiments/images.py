"""The images of the plan: training batches, changed test images, digits."""

import keras
import numpy as np
import scipy.ndimage

PADDING = 2  # pixels by which training images are shifted
SQUARES, SIDE, GRAY = 4, 6, 128  # of the occlusion


class Batches(keras.utils.PyDataset):
    """Shuffled, mirrored and shifted images; equal seeds give equal batches."""

    def __init__(self, images, labels, batch_size, seed):
        super().__init__()
        margin = (0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)
        sides = images.shape[1:3]
        self.windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(images, margin), sides, axis=(1, 2)
        )  # (N, shifts, shifts, C, H, W)
        self.labels, self.batch_size, self.seed = labels, batch_size, seed
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, index):
        chosen = slice(index * self.batch_size, (index + 1) * self.batch_size)
        order, (top, left) = self.order[chosen], self.shifts[:, chosen]
        images = np.moveaxis(self.windows[order, top, left], 1, -1)
        mirrored = self.mirrored[chosen]
        images[mirrored] = images[mirrored, :, ::-1]
        return images, self.labels[order]

    def on_epoch_end(self):
        self.epoch += 1
        random, count = np.random.default_rng((self.seed, self.epoch)), len(self.labels)
        self.order = random.permutation(count)
        self.shifts = random.integers(2 * PADDING + 1, size=(2, count))
        self.mirrored = random.random(count) < 0.5


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
