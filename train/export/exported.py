"""An export as an image classifier, without the network that it was made of."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from train.export import answers, inspection, runtimes


@dataclasses.dataclass(frozen=True)
class ExportedClassifier:
    """A SavedModel of `train.export`.

    Attributes:
        model: Name of the network.
        version: Version number.
        shape, shorter_side, interpolation, class_names: As in `ImageClassifier`.
        probabilities: Function of uint8 images (N, H, W, C).
    """

    model: str
    version: int
    shape: tuple[int, int, int]
    shorter_side: int | None
    interpolation: str
    class_names: tuple[str, ...]
    probabilities: Callable

    @classmethod
    def load(cls, path: pathlib.Path) -> "ExportedClassifier":
        """Loads an export, or the newest one of a run, after inspecting its files.

        Raises:
            RunError: If it is none, is damaged, or may do more than compute.
        """
        path = runtimes.newest_export(path)
        inspection.require_plain(path)
        card = answers.read_card(path)
        seen = card["preprocessing"]
        return cls(
            card["model"],
            card["version"],
            tuple(seen["shape"]),
            seen["shorter_side"],
            seen.get("interpolation", "bilinear"),  # missing before version 0.2
            tuple(card["class_names"]),
            runtimes.load("saved_model", path),
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logarithms of the probabilities, which are logits, too."""
        return np.log(np.maximum(self.probabilities(images), np.finfo("float32").tiny))
