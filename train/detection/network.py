"""Mask R-CNN of Model Garden with networks of the zoo and the norms of the paper."""

import dataclasses

import tf_keras
from official.vision.modeling import factory
from official.vision.modeling.backbones import factory as backbone_factory
from official.vision.ops import preprocess_ops

import model_zoo
from model_zoo.preprocessing import Preprocessing, preprocessing, standardize
from train.detection import configs, heads
from train.detection.facade import Backbone, policy_of_tf_keras

# Mean and deviation of images as Model Garden's parser prepares them.
PARSED = preprocess_ops.MEAN_NORM, preprocess_ops.STDDEV_NORM


@backbone_factory.register_backbone_builder("zoo")
def build_backbone(
    input_specs, backbone_config, norm_activation_config=None, l2_regularizer=None
) -> Backbone:
    """Returns a network of the zoo as a backbone.

    Epsilon and momentum are those of the zoo, not of `norm_activation_config`. Where
    the network expects other images than Model Garden's parser prepares, they are
    converted first. Has the network as `zoo_network` and what it expects as
    `preprocessing`.
    """
    del norm_activation_config
    settings = backbone_config.get()
    given = {name: tuple(getattr(settings, name)) for name in ("mean", "std")}
    expected = dataclasses.replace(
        preprocessing(settings.name), **{name: v for name, v in given.items() if v}
    )
    with policy_of_tf_keras():
        network = model_zoo.create_model(
            settings.name, include_top=False, input_shape=tuple(input_specs.shape[1:])
        )
        maps = model_zoo.multi_scale(network)
    backbone = Backbone(
        maps,
        frozen_level=settings.frozen_level or None,
        preprocess=_preprocess(expected),
        regularizer=l2_regularizer,
        training=False if settings.norms_in_inference else None,
    )
    backbone.preprocessing = expected
    object.__setattr__(backbone, "zoo_network", network)  # not tracked by tf_keras
    return backbone


def _preprocess(expected: Preprocessing):
    (mean, std), wanted = PARSED, (expected.mean, expected.std)
    if wanted == PARSED and not expected.reverse_channels:
        return None
    return lambda images: standardize(
        (images * std + mean) * 255, *wanted, expected.reverse_channels
    )


def build_maskrcnn(
    input_specs, model_config: configs.MaskRCNN, l2_regularizer=None
) -> tf_keras.Model:
    """Returns Mask R-CNN, or Cascade R-CNN where the RoI sampler has further IoUs.

    The heads, the pyramid and, with `"zoo"`, the backbone have the norms of the
    configuration and no others. Every trained variable is regularized.

    Args:
        input_specs: `tf_keras.layers.InputSpec` of the images, (N, H, W, 3).
        model_config: The configuration.
        l2_regularizer: `tf_keras.regularizers.Regularizer` or `None`.
    """
    norms = model_config.norms
    backbone = backbone_factory.build_backbone(
        input_specs, model_config.backbone, model_config.norm_activation, l2_regularizer
    )
    decoder = heads.feature_pyramid(
        backbone.output_specs,
        model_config.min_level,
        model_config.max_level,
        model_config.decoder.get().num_filters,
        norms.pyramid,
        l2_regularizer,
    )
    model = factory.build_maskrcnn(
        input_specs, model_config, l2_regularizer, backbone, decoder
    )

    def with_norms(cls, head, **given):
        settings = {**head.get_config(), "bias_regularizer": l2_regularizer}
        return cls(name=head.name, **settings, **given)

    in_box_heads = {"norm": norms.box_head, "num_components": norms.num_components}
    parts = dict(model.get_config())
    parts["rpn_head"] = with_norms(heads.RPNHead, model.rpn_head)
    parts["detection_head"] = [
        with_norms(heads.BoxHead, head, **in_box_heads) for head in model.detection_head
    ]
    if model.mask_head is not None:
        parts["mask_head"] = with_norms(
            heads.MaskHead, model.mask_head, norm=norms.mask_head
        )
    # A new model, since the configuration of the first keeps its heads' variables.
    model = type(model)(**parts)
    image = tf_keras.Input(input_specs.shape[1:])
    model(image, image_shape=tf_keras.Input([2]), training=False)
    return model
