"""Replicas have equal moving statistics and compute what one device computes."""

import textwrap

import pytest

PROGRAM = textwrap.dedent("""
    import keras, numpy as np, tensorflow as tf
    from an_keras import AttentiveNormalization, BatchNormalization

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    def build(synchronized):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([
            keras.Input((6, 6, 4)),
            AttentiveNormalization(3, synchronized=synchronized),
            BatchNormalization(synchronized=synchronized),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        return model

    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 1.0, (32, 6, 6, 4)).astype("float32")
    y = rng.normal(size=(32, 2)).astype("float32")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for synchronized in (False, True):
        with strategy.scope():
            model = build(synchronized)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        for variable in model.variables:
            one, other = strategy.experimental_local_results(variable.value)
            np.testing.assert_allclose(one, other, atol=1e-7)
        if synchronized:
            single = build(synchronized)
            single.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
            for one, other in zip(single.get_weights(), model.get_weights()):
                np.testing.assert_allclose(one, other, atol=1e-6)
        # a last batch of one sample leaves the second replica without any
        data = tf.data.Dataset.from_tensor_slices((x[:5], y[:5])).batch(4)
        model.fit(data, epochs=1, verbose=0)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())
        print("agree", synchronized)
""")


@pytest.mark.slow
def test_replicas_agree_and_equal_one_device_if_synchronized(command):
    lines = command("-c", PROGRAM).stdout.splitlines()
    assert lines[-2:] == ["agree False", "agree True"]
