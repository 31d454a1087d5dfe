"""Further settings of Model Garden's Mask R-CNN, for networks of the zoo."""

import dataclasses

from official.modeling import hyperparams
from official.vision.configs import backbones, maskrcnn


def _default(config):
    return dataclasses.field(default_factory=config)


@dataclasses.dataclass
class Zoo(hyperparams.Config):
    """A network of the zoo as backbone.

    Attributes:
        name: Name for `model_zoo.create_model`.
        frozen_level: The layers that the map of this level depends on are not trained:
            with 2, the stem and the first stage. 0: all are trained.
        norms_in_inference: Whether all norms use their moving statistics in training,
            too. Scales, shifts, tables and gates are trained in both cases.
        mean, std: Mean and standard deviation of pixels from 0 to 1 that the network
            expects: three numbers, or one for all channels. Empty: those of the zoo.
    """

    name: str = "resnet50_an"
    frozen_level: int = 2
    norms_in_inference: bool = True
    mean: list[float] = _default(list)
    std: list[float] = _default(list)


@dataclasses.dataclass
class Backbone(backbones.Backbone):
    """The backbones of Model Garden, and those of the zoo."""

    type: str = "zoo"
    zoo: Zoo = _default(Zoo)


@dataclasses.dataclass
class Norms(hyperparams.Config):
    """Norms after the convolutions: none, bn, gn or, in the box head, an_gn.

    Attributes:
        pyramid, box_head, mask_head: Norm of each part.
        num_components: K of each convolution of the box head with `an_gn`.
    """

    pyramid: str = "none"
    box_head: str = "none"
    mask_head: str = "none"
    num_components: list[int] = _default(lambda: [10, 10, 20, 20])


@dataclasses.dataclass
class MaskRCNN(maskrcnn.MaskRCNN):
    """Mask R-CNN, or Cascade R-CNN, with a network of the zoo."""

    backbone: Backbone = _default(Backbone)
    norms: Norms = _default(Norms)


@dataclasses.dataclass
class MaskRCNNTask(maskrcnn.MaskRCNNTask):
    """Mask R-CNN and its data.

    Attributes:
        weights: Initial weights of a backbone of the zoo: a tag (`imagenet` for
            networks of Keras Applications), a `.weights.h5` file, or the directory of a
            run of `python -m train`, whose best weights are taken. Empty: random.
        stage_weights: Weight of each stage's losses of box and class: one, or one more
            than there are `cascade_iou_thresholds`.
    """

    model: MaskRCNN = _default(MaskRCNN)
    weights: str = ""
    stage_weights: list[float] = _default(lambda: [1.0])
