"""The task of Model Garden for Mask R-CNN, with weights of the zoo and of stages."""

import os
import pathlib

import numpy as np
import tf_keras
from official.core import task_factory
from official.vision.losses import maskrcnn_losses
from official.vision.tasks import maskrcnn

import model_zoo
from train.cli import UsageError
from train.detection import configs, network
from train.engine import models, run_directory


@task_factory.register_task_cls(configs.MaskRCNNTask)
class MaskRCNNTask(maskrcnn.MaskRCNNTask):
    """Mask R-CNN, or Cascade R-CNN with a weight for each stage.

    L = L_rpn + sum_i w_i (L_class_i + L_box_i) + L_mask + decay / 2 * ||trained||^2

    Cai and Vasconcelos, Cascade R-CNN, CVPR 2018: w = 1, 0.5, 0.25. (Model Garden's own
    task averages over the stages.)

    Attributes:
        loaded: What `initialize` has loaded, in words.
    """

    loaded = ""

    def build_model(self):
        settings = self.task_config
        stages = 1 + len(settings.model.roi_sampler.cascade_iou_thresholds or ())
        if len(settings.stage_weights) != stages:
            raise UsageError(
                f"Expected {stages} numbers in task.stage_weights, one for each stage. "
                f"Received: {list(settings.stage_weights)}."
            )
        decay = settings.losses.l2_weight_decay
        images = tf_keras.layers.InputSpec(shape=[None, *settings.model.input_size])
        regularizer = tf_keras.regularizers.l2(decay / 2) if decay else None
        model = network.build_maskrcnn(images, settings.model, regularizer)
        if settings.freeze_backbone:
            model.backbone.trainable = False
        return model

    def initialize(self, model):
        """Loads `task.weights` into the backbone, or Model Garden's `init_checkpoint`.

        Not called where training goes on from a checkpoint.
        """
        super().initialize(model)
        weights = self.task_config.weights
        if weights:
            count = load_backbone(model.backbone, weights)
            self.loaded = f"{count} arrays of {weights}; all other weights are new"

    def _build_frcnn_losses(self, outputs, labels):
        del labels  # the outputs contain the targets
        losses = self.task_config.losses
        of_class = maskrcnn_losses.FastrcnnClassLoss(
            losses.frcnn_class_use_binary_cross_entropy,
            losses.frcnn_class_loss_top_k_percent,
        )
        of_box = maskrcnn_losses.FastrcnnBoxLoss(
            losses.frcnn_huber_loss_delta,
            self.task_config.model.detection_head.class_agnostic_bbox_pred,
        )
        class_loss = box_loss = 0.0
        for stage, weight in enumerate(self.task_config.stage_weights):
            suffix = f"_{stage}" if stage else ""
            classes, boxes, class_targets, box_targets = (
                outputs[f"{name}{suffix}"]
                for name in (
                    *("class_outputs", "box_outputs"),
                    *("class_targets", "box_targets"),
                )
            )
            class_loss += weight * of_class(
                classes, class_targets, losses.class_weights
            )
            box_loss += weight * of_box(boxes, class_targets, box_targets)
        return class_loss, box_loss


def load_backbone(backbone, weights: str) -> int:
    """Loads weights into a backbone of the zoo, and returns the number of arrays.

    Args:
        backbone: What `network.build_backbone` returns.
        weights: A tag, a file or a run, as in `configs.MaskRCNNTask`.

    Raises:
        UsageError: If there are no such weights, or they are of another network, or
            the run showed its network images of another mean or standard deviation.
        RunError: If the run has no weights.
    """
    if not hasattr(backbone, "zoo_network"):
        raise UsageError(
            "Expected task.weights with task.model.backbone.type=zoo only. Received: "
            f"{weights} with another backbone; use task.init_checkpoint."
        )
    target = backbone.zoo_network
    if os.path.isdir(weights):
        _require_preprocessing(backbone.preprocessing, weights)
        with models.best_weights(pathlib.Path(weights)) as file:
            return _load(target, file, weights)
    return _load(target, weights, weights)


def _require_preprocessing(expected, run):
    data = run_directory.read_spec(pathlib.Path(run)).recipe.data
    seen, shown = (
        np.broadcast_arrays(each.mean, each.std, np.zeros(3))[:2]
        for each in (data, expected)
    )
    if not np.allclose(seen, shown):
        mean, std = (f"[{','.join(map(str, each))}]" for each in (data.mean, data.std))
        raise UsageError(
            f"Expected what {run} was trained with: "
            f"task.model.backbone.zoo.mean={mean}, task.model.backbone.zoo.std={std}. "
            f"Received: {expected.description()}."
        )
    if data.reverse_channels != expected.reverse_channels:
        raise UsageError(
            f"Expected the order of channels of {run}: "
            f"data.reverse_channels={data.reverse_channels}. Received: a network of "
            f"images that are {expected.description()}."
        )


def _load(target, weights, shown):
    try:
        source = model_zoo.create_model(
            target.name,
            weights=weights,
            include_top=False,
            input_shape=target.input_shape[1:],
        )
    except ValueError as error:
        message = str(error).replace(weights, shown)
        raise UsageError(f"task.weights={shown}: {message}") from error
    target.set_weights(source.get_weights())
    return len(target.weights)
