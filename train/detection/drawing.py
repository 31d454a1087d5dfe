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

SIDES = 512, 1600  # pixels of a picture's longer side; images are scaled to that
OUTPUTS = (
    *("detection_boxes", "detection_classes", "detection_scores"),
    "num_detections",
)


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
        longest, (least, largest) = max(self.image.shape[:2]), SIDES
        factor = min(max(1, -(-least // longest)), largest / longest)
        height, width = (max(1, round(n * factor)) for n in self.image.shape[:2])
        scaled = Image.fromarray(self.image).resize((width, height))
        boxes, masks = self.boxes * factor, None
        if self.masks is not None:
            pasted = mask_ops.paste_instance_masks(
                self.masks, box_ops.yxyx_to_xywh(boxes), height, width
            )
            masks = (np.array(pasted) > 0.5).astype(np.uint8)
        return Image.fromarray(
            visualization_utils.visualize_boxes_and_labels_on_image_array(
                np.array(scaled),
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


class Export:
    """A detector that `train.detection.export` has written.

    Args:
        path: Directory of the version.
        least: Score from which objects are returned.

    Raises:
        RunError: If it holds anything but computations on tensors, is damaged, or is
            not a detector.
    """

    def __init__(self, path: pathlib.Path, least: float):
        inspection.require_plain(path)
        try:
            self._model = tf.saved_model.load(str(path))
            self._detect = self._model.signatures["serving_default"]
            labels = (path / "assets" / "labels.txt").read_text(encoding="utf-8")
        except (OSError, LookupError, ValueError, tf.errors.OpError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        if not {*OUTPUTS} <= {*self._detect.structured_outputs}:
            raise RunError(
                f"{path} is not a detector. Expected outputs {', '.join(OUTPUTS)}. "
                f"Received: {', '.join(self._detect.structured_outputs)}."
            )
        self._names, self._least = labels.splitlines(), least

    def detect(self, path: pathlib.Path) -> Objects:
        """Returns the objects in the image of a file.

        Raises:
            RunError: If the file is not an image, or not one for the detector.
        """
        try:
            content = path.read_bytes()
            image = tf.io.decode_image(content, 3, expand_animations=False)
        except (OSError, tf.errors.OpError) as error:
            raise RunError(
                f"{path} cannot be read as an image. Expected JPEG, PNG, GIF or BMP."
            ) from error
        try:
            answers = self._detect(image[tf.newaxis])
        except tf.errors.OpError as error:
            height, width = image.shape[:2]
            raise RunError(
                f"{path} is not an image for this detector. Expected one that keeps a "
                "pixel in each direction when its longer side is scaled. "
                f"Received: height {height}, width {width}."
            ) from error
        answer = {name: value.numpy()[0] for name, value in answers.items()}
        scores, masks = answer["detection_scores"], answer.get("detection_masks")
        is_used = np.arange(len(scores)) < answer["num_detections"]
        chosen = is_used & (scores >= self._least)
        classes = answer["detection_classes"][chosen].astype(int)
        if classes.max(initial=0) >= len(self._names):
            raise RunError(
                f"The export's labels.txt is damaged. Expected {classes.max() + 1} "
                f"lines or more. Received: {len(self._names)}."
            )
        return Objects(
            image.numpy(),
            answer["detection_boxes"][chosen],
            classes,
            scores[chosen],
            None if masks is None else masks[chosen],
            self._names,
        )
