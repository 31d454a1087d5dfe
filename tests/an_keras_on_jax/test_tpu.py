"""The JAX layer, and a small network with it, lower for TPU."""

import jax
import keras
import pytest

import model_zoo
from an_keras import AttentiveNormalization


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("which", ["layer", "network"])
def test_lowers_for_tpu(which, training):
    if which == "layer":
        shape = (4, 8, 8, 16)
        model = keras.Sequential([keras.Input(shape[1:]), AttentiveNormalization(3)])
    else:
        shape = (4, 8, 8, 1)
        model = model_zoo.create_model("resnet20_an", input_shape=shape[1:])
    trainable = [variable.value for variable in model.trainable_variables]
    non_trainable = [variable.value for variable in model.non_trainable_variables]

    def call(trainable, non_trainable, x):
        return model.stateless_call(trainable, non_trainable, x, training=training)

    exported = jax.export.export(jax.jit(call), platforms=["tpu"])(
        trainable, non_trainable, jax.ShapeDtypeStruct(shape, "float32")
    )
    assert exported.platforms == ("tpu",)
    assert "stablehlo" in exported.mlir_module()
