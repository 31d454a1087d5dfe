"""Layers and models of Keras 3 in tf_keras, which Model Garden is written in."""

import contextlib

import keras
import tensorflow as tf
import tf_keras


@contextlib.contextmanager
def policy_of_tf_keras():
    """A context in which layers of Keras 3 get the data types of tf_keras' policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(tf_keras.mixed_precision.global_policy().name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class KerasLayer(tf_keras.layers.Layer):
    """Runs a layer or model of Keras 3 as a layer of tf_keras.

    tf_keras sees the variables, by their paths (`weights_by_path`), not the layer: its
    checkpoints, strategies, optimizers and SavedModels work as with its own layers.
    Which variables are trained is asked of the layer each time, so that its parts can
    be frozen, too. It computes with the data types of its own policy.

    Args:
        layer: A `keras.layers.Layer` or `keras.Model`, built or not.
        regularizer: A `tf_keras.regularizers.Regularizer` for all trained variables,
            also biases and tables, as SGD of PyTorch decays them.
        training: Passed to the layer; `False` keeps its moving statistics while its
            variables are trained. `None` passes on what the network is called with.
        **kwargs: Arguments of `tf_keras.layers.Layer`.
    """

    def __init__(self, layer, regularizer=None, training=None, **kwargs):
        super().__init__(**{"name": layer.name, "autocast": False, **kwargs})
        object.__setattr__(self, "keras_layer", layer)  # not tracked by tf_keras
        self._regularizer = regularizer
        self._passed_training = training
        self.weights_by_path = {}

    def build(self, input_shape):
        if not self.keras_layer.built:
            self.keras_layer.build(tuple(input_shape))
        self.weights_by_path = {
            variable.path: variable.value for variable in self.keras_layer.weights
        }
        if len(self.weights_by_path) < len(self.keras_layer.weights):
            raise ValueError(
                f"Variables of {self.keras_layer.name} must have different paths. "
                f"Received: {[v.path for v in self.keras_layer.weights]}."
            )
        if self._regularizer is not None:
            self.add_loss(self._penalty)
        super().build(input_shape)

    def call(self, inputs, training=None):
        if self._passed_training is not None:
            training = self._passed_training
        return self.keras_layer(inputs, training=bool(training))

    @property
    def trainable_weights(self):
        trained = self._trained_paths()
        return [v for path, v in self.weights_by_path.items() if path in trained]

    @property
    def non_trainable_weights(self):
        trained = self._trained_paths()
        return [v for path, v in self.weights_by_path.items() if path not in trained]

    def _penalty(self):
        zero = tf.zeros(())
        return sum(map(self._regularizer, self.trainable_weights), zero)

    def _trained_paths(self) -> set[str]:
        if not self.trainable:
            return set()
        return {variable.path for variable in self.keras_layer.trainable_weights}


class Backbone(KerasLayer):
    """Feature maps of a network of Keras 3 for a decoder of Model Garden.

    images (N, H, W, C) -> {"2": (N, H/4, W/4, C2), ...}

    Args:
        model: What `model_zoo.multi_scale` returns.
        frozen_level: The layers that the map of this level depends on are not trained.
            2 freezes the stem and the first stage, as the paper does. `None`: none.
        preprocess: Function of the images, called first.
        **kwargs: Arguments of `KerasLayer`.

    Raises:
        ValueError: If the network has no map of the frozen level.
    """

    def __init__(self, model, frozen_level=None, preprocess=None, **kwargs):
        super().__init__(model, **kwargs)
        self._preprocess = preprocess
        if frozen_level is None:
            return
        maps = model.output
        if str(frozen_level) not in maps:
            raise ValueError(
                f"`frozen_level` must be one of {', '.join(maps)} for {model.name}. "
                f"Received: frozen_level={frozen_level}."
            )
        for layer in keras.Model(model.inputs, maps[str(frozen_level)]).layers:
            layer.trainable = False

    def call(self, inputs, training=None):
        if self._preprocess is not None:
            inputs = self._preprocess(inputs)
        return super().call(inputs, training)

    @property
    def output_specs(self) -> dict[str, tf.TensorShape]:
        """Shapes of the maps by level."""
        maps = self.keras_layer.output
        return {level: tf.TensorShape(tensor.shape) for level, tensor in maps.items()}
