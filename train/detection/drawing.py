"""Answers of an exported detector as rows, and drawn on the image."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf
from official.vision.ops import box_ops, mask_ops
from official.vision.utils.object_detection import visualization_utils
from PIL import Image

from train.cli import RunError
from train.export import inspection

LEAST_SIDE = 512  # pixels of a picture; smaller images are enlarged


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects found in an image, the surest first.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: (N, 4): ymin, xmin, ymax, xmax, in pixels.
        classes, scores: (N,).
        masks: (N, h, w), probabilities within the boxes; `None` without masks.
        names: Of the classes, by number.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None
    names: list[str]

    def rows(self) -> list[tuple[str, ...]]:
        """Returns class, score, x, y, width and height of each object."""
        rows = []
        for box, label, score in zip(
            box_ops.yxyx_to_xywh(self.boxes), self.classes, self.scores, strict=True
        ):
            numbers = (f"{value:.1f}" for value in box)
            rows.append((self.names[label], f"{score:.3f}", *numbers))
        return rows

    def picture(self) -> Image.Image:
        """Returns the image with boxes, masks, names and scores."""
        factor = -(-LEAST_SIDE // max(self.image.shape[:2]))
        height, width = (side * factor for side in self.image.shape[:2])
        large = Image.fromarray(self.image).resize((width, height))
        boxes, masks = self.boxes * factor, None
        if self.masks is not None:
            pasted = mask_ops.paste_instance_masks(
                self.masks, box_ops.yxyx_to_xywh(boxes), height, width
            )
            masks = (np.array(pasted) > 0.5).astype(np.uint8)
        return Image.fromarray(
            visualization_utils.visualize_boxes_and_labels_on_image_array(
                np.array(large),
                boxes,
                self.classes,
                self.scores,
                {number: {"name": name} for number, name in enumerate(self.names)},
                instance_masks=masks,
                max_boxes_to_draw=None,
                min_score_thresh=0,
                line_thickness=2,
            )
        )


class Detector:
    """An export of `train.detection.export`.

    Args:
        path: Directory of the version.
        least: Score from which objects are returned.

    Raises:
        RunError: If it holds anything but computations on tensors, or cannot be loaded.
    """

    def __init__(self, path: pathlib.Path, least: float):
        inspection.require_plain(path)
        try:
            self._model = tf.saved_model.load(str(path))
            self._detect = self._model.signatures["serving_default"]
            labels = (path / "assets" / "labels.txt").read_text(encoding="utf-8")
        except (OSError, KeyError, tf.errors.OpError) as error:
            raise RunError(f"{path} is not an export of a detector: {error}") from error
        self._names, self._least = labels.splitlines(), least

    def detect(self, path: pathlib.Path) -> Objects:
        """Returns the objects in the image of a file.

        Raises:
            RunError: If the file is not an image.
        """
        try:
            image = tf.io.decode_image(path.read_bytes(), 3, expand_animations=False)
        except (OSError, tf.errors.OpError) as error:
            raise RunError(f"{path} cannot be read as an image: {error}") from error
        answer = {k: v.numpy()[0] for k, v in self._detect(image[tf.newaxis]).items()}
        chosen = answer["detection_scores"] >= self._least
        masks = answer.get("detection_masks")
        return Objects(
            image.numpy(),
            answer["detection_boxes"][chosen],
            answer["detection_classes"][chosen].astype(int),
            answer["detection_scores"][chosen],
            None if masks is None else masks[chosen],
            self._names,
        )
