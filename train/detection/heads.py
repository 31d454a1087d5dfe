"""Heads and pyramid of Model Garden's Mask R-CNN, with the norms of the paper.

Model Garden's own heads have batch normalization after every convolution, deconvolution
and fully connected layer. Here only the convolutions have a norm, or none has.
"""

import keras
import tensorflow as tf
import tf_keras
from official.vision.modeling.heads import dense_prediction_heads, instance_heads

from an_keras import AttentiveNormalization, BatchNormalization
from train.detection.facade import KerasLayer, policy_of_tf_keras

GROUPS = 32  # of group normalization
EPSILON = 1e-5
MOMENTUM = 0.9


def _an_gn(name, num_components):
    return AttentiveNormalization(
        num_components,
        normalization="group",
        groups=GROUPS,
        gate_normalization=None,
        epsilon=EPSILON,
        name=name,
    )


NORMS = {
    "none": None,
    "bn": lambda name, _: BatchNormalization(
        momentum=MOMENTUM, epsilon=EPSILON, synchronized=True, name=name
    ),
    "gn": lambda name, _: keras.layers.GroupNormalization(
        GROUPS, epsilon=EPSILON, name=name
    ),
    "an_gn": _an_gn,
}


def create_norm(
    norm: str, name: str, num_components: int | None = None, regularizer=None
) -> tf_keras.layers.Layer:
    """Returns a norm as a layer of tf_keras.

    Args:
        norm: `"none"`; `"bn"`, batch normalization; `"gn"`, group normalization with 32
            groups; `"an_gn"`, Attentive Normalization over it, whose gate is linear
            with a bias and has a hard sigmoid.
        name: Name of the layer.
        num_components: K of `"an_gn"`.
        regularizer: `tf_keras.regularizers.Regularizer` of all its variables.

    Raises:
        ValueError: If there is no such norm, or `"an_gn"` has no K.
    """
    if norm not in NORMS:
        raise ValueError(
            f"`norm` must be one of {', '.join(NORMS)}. Received: norm={norm}."
        )
    if norm == "none":
        return tf_keras.layers.Layer(name=name)
    if norm == "an_gn" and num_components is None:
        raise ValueError(
            "`norm` must be none, bn or gn in the pyramid and the mask head. "
            f"Received: norm={norm} for {name}."
        )
    with policy_of_tf_keras():
        return KerasLayer(NORMS[norm](name, num_components), regularizer)


class BoxHead(instance_heads.DetectionHead):
    """Box head whose convolutions have a norm; the fully connected layers have none.

    Args:
        norm: As in `create_norm`.
        num_components: K of each convolution's norm, where it is `"an_gn"`.
        **kwargs: Arguments of Model Garden's `DetectionHead`.
    """

    def __init__(self, norm="none", num_components=(10, 10, 20, 20), **kwargs):
        super().__init__(**kwargs)
        self._norm = {"norm": norm, "num_components": tuple(num_components)}
        if norm == "an_gn" and len(num_components) != kwargs["num_convs"]:
            raise ValueError(
                "`num_components` must have a number for each of the "
                f"{kwargs['num_convs']} convolutions. Received: {num_components}."
            )

    def build(self, input_shape):
        super().build(input_shape)
        regularizer = self._config_dict["kernel_regularizer"]
        components = self._norm["num_components"]
        self._conv_norms = [
            create_norm(
                self._norm["norm"],
                f"detection-conv-norm_{i}",
                components[i] if i < len(components) else None,
                regularizer,
            )
            for i in range(len(self._convs))
        ]
        self._fc_norms = [tf_keras.layers.Layer() for _ in self._fcs]

    def get_config(self):
        return {**super().get_config(), **self._norm}


class MaskHead(instance_heads.MaskHead):
    """Mask head whose convolutions have a norm; the deconvolution has none.

    Args:
        norm: As in `create_norm`, but not `"an_gn"`.
        **kwargs: Arguments of Model Garden's `MaskHead`.
    """

    def __init__(self, norm="none", **kwargs):
        super().__init__(**kwargs)
        self._norm = {"norm": norm}

    def build(self, input_shape):
        super().build(input_shape)
        regularizer = self._config_dict["kernel_regularizer"]
        self._conv_norms = [
            create_norm(
                self._norm["norm"], f"mask-conv-norm_{i}", regularizer=regularizer
            )
            for i in range(len(self._convs))
        ]
        self._deconv_bn = tf_keras.layers.Layer()

    def get_config(self):
        return {**super().get_config(), **self._norm}


class RPNHead(dense_prediction_heads.RPNHead):
    """Region proposal head without norms.

    Args:
        **kwargs: Arguments of Model Garden's `RPNHead`.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self._norms = [
            [tf_keras.layers.Layer() for _ in self._convs] for _ in self._norms
        ]


def feature_pyramid(
    input_specs: dict[str, tf.TensorShape],
    min_level: int = 2,
    max_level: int = 6,
    num_filters: int = 256,
    norm: str = "none",
    regularizer=None,
) -> tf_keras.Model:
    """Returns the feature pyramid of the paper's detectors.

    M_l = conv1x1(C_l) + up(M_(l+1)), P_l = conv3x3(M_l), where C_l is the backbone's
    map of level l; further levels subsample the one below. Each convolution has a norm
    or none, and no activation. (Model Garden's has strided convolutions for further
    levels, and batch normalization at the end.) Lin et al., Feature Pyramid Networks
    for Object Detection, CVPR 2017.

    Args:
        input_specs: Shapes of the backbone's maps by level.
        min_level: First level of the pyramid.
        max_level: Last level.
        num_filters: Channels of its maps.
        norm: As in `create_norm`, but not `"an_gn"`.
        regularizer: `tf_keras.regularizers.Regularizer` of all variables.
    """
    inputs = {
        level: tf_keras.Input(shape[1:], name=f"map_{level}")
        for level, shape in input_specs.items()
    }

    def convolved(x, size, name):
        x = tf_keras.layers.Conv2D(
            num_filters,
            size,
            padding="same",
            kernel_initializer="glorot_uniform",
            kernel_regularizer=regularizer,
            bias_regularizer=regularizer,
            name=name,
        )(x)
        return create_norm(norm, f"{name}_norm", regularizer=regularizer)(x)

    levels = range(min_level, max_level + 1)
    given = [level for level in levels if str(level) in inputs]
    maps, above = {}, None
    for level in reversed(given):
        lateral = convolved(inputs[str(level)], 1, f"lateral_{level}")
        if above is not None:
            up = tf_keras.layers.UpSampling2D(name=f"up_{level}")(above)
            lateral = tf_keras.layers.Add(name=f"sum_{level}")([lateral, up])
        above = lateral
        maps[str(level)] = convolved(lateral, 3, f"pyramid_{level}")
    for level in levels[len(given) :]:
        maps[str(level)] = tf_keras.layers.MaxPool2D(1, 2, name=f"pyramid_{level}")(
            maps[str(level - 1)]
        )
    model = tf_keras.Model(inputs, maps, name="feature_pyramid")
    model.output_specs = {level: map_.shape for level, map_ in maps.items()}
    return model
