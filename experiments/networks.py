"""The networks of the plan: those of the zoo, and controls at the places of AN."""

import keras
from keras import layers, ops

import model_zoo
from an_keras import AttentiveNormalization
from model_zoo import resnet
from model_zoo.network import build_network

CLASSES = 10
# Arguments of `create_model`. MobileNetV2 needs 32 pixels: it gets 56, enlarged.
SMALL = {"input_shape": (28, 28, 1)}
NETWORKS = {
    "resnet20": SMALL,
    "resnet29": SMALL,
    "mobilenetv2": {"input_shape": (56, 56, 1), "width_multiplier": 0.5},
}
COMPONENTS = (10, 10, 20)  # K in the stages of the residual networks


class ConstantGate(AttentiveNormalization):
    """AN without attention: all images get the same mixture of the K tables."""

    def _describe(self, *arguments):
        return ops.zeros_like(super()._describe(*arguments))


class BatchInstanceNormalization(layers.Layer):
    """gamma * (r * BN(x) + (1 - r) * IN(x)) + beta, r = sigmoid(logit) per channel.

    Nam and Kim, Batch-Instance Normalization, NeurIPS 2018, who clip r instead.
    """

    def __init__(self, momentum, epsilon, **kwargs):
        super().__init__(**kwargs)
        shared = {"epsilon": epsilon, "center": False, "scale": False}
        self.batch = layers.BatchNormalization(momentum=momentum, **shared)
        self.instance = layers.GroupNormalization(groups=-1, **shared)

    def build(self, shape):
        self.batch.build(shape)
        self.instance.build(shape)
        for name, value in (("logit", "zeros"), ("gamma", "ones"), ("beta", "zeros")):
            setattr(
                self,
                name,
                self.add_weight(name=name, shape=shape[-1:], initializer=value),
            )

    def call(self, inputs, training=None, mask=None):
        r = ops.sigmoid(self.logit)
        x = r * self.batch(inputs, training=training)
        return self.gamma * (x + (1 - r) * self.instance(inputs)) + self.beta


def _batch_instance(settings):
    names = ("name", "momentum", "epsilon")
    return BatchInstanceNormalization(**{name: settings[name] for name in names})


def _normal(mean):
    """Initializers of a table, one for each stage."""
    return tuple(
        keras.initializers.RandomNormal(2 * mean / k, 0.2 / k) for k in COMPONENTS
    )


GAIN_1 = {
    "gamma_initializer": _normal(1),
    "beta_initializer": _normal(0),
    "moving_variance_initializer": "ones",
}
# Arguments of `create_model`, and what takes the place of AN, given its settings.
AN = AttentiveNormalization.from_config
VARIANTS = {
    "bn": ({}, None),
    "an": ({}, AN),
    "constant": ({}, ConstantGate.from_config),
    "se": ({}, None),
    "instance": ({}, _batch_instance),
    "an_mean": ({"norm_options": {"descriptor": "mean"}}, AN),
    "an_mean_plus_max": ({"norm_options": {"descriptor": "mean_plus_max"}}, AN),
    "an_k2": ({"num_components": 2}, AN),
    "an_k20": ({"num_components": 20}, AN),
    "an_all": ({"position": "all"}, AN),
    "an_no_decay": ({}, AN),
    "an_gain_1": ({"norm_options": GAIN_1}, AN),
}


def build(network: str, variant: str, momentum: float) -> keras.Model:
    """Returns the network of a row, from normalized images to logits.

    Args:
        network: One of `NETWORKS`.
        variant: One of `VARIANTS`.
        momentum: That of the moving statistics of all norms.
    """
    given, place_of_an = VARIANTS[variant]
    arguments = {
        "classes": CLASSES,
        "classifier_activation": None,
        **NETWORKS[network],
        **given,
    }
    if variant == "se":  # the zoo has it for ImageNet only
        model = build_network(resnet.SPECS[network], "se", **arguments)
    else:
        name = "bn" if variant == "bn" else "an"
        model = model_zoo.create_model(f"{network}_{name}", **arguments)

    def cloned(layer):
        settings = layer.get_config()
        if "momentum" in settings:
            settings["momentum"] = momentum
        if isinstance(layer, AttentiveNormalization):
            return place_of_an(settings)
        return type(layer).from_config(settings)

    return keras.models.clone_model(model, clone_function=cloned)
