"""Loading weights into a network, strictly."""

import os
import warnings

import keras


def load(model: keras.Model, weights: str | os.PathLike | None) -> None:
    """Loads a `.weights.h5` file of the same network; `None` leaves it initialized.

    Raises:
        ValueError: no such file, or a file of another network.
    """
    if weights is None:
        return
    if not os.path.isfile(weights):
        raise ValueError(
            "`weights` must be None or the path of a .weights.h5 file. "
            f"Received: weights={os.fspath(weights)!r}."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # one error says it all
            model.load_weights(weights)
    except ValueError as error:
        raise ValueError(
            f"{os.fspath(weights)!r} holds the weights of another network than "
            f"{model.name}: {error}"
        ) from error
