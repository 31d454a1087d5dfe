"""Models called in several threads at once give the same results as in one.

Each program runs in its own process, because corrupted memory ends a process. It uses
the kernels of oneDNN, which TensorFlow uses on some processors only.
"""

import textwrap

import pytest

ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}
NETWORKS = textwrap.dedent("""
    import concurrent.futures, functools, sys
    import keras, numpy as np, tensorflow as tf
    from an_keras import AttentiveNormalization, BatchNormalization

    def images(seed, count):
        rng = np.random.default_rng(seed)
        return tf.constant(rng.normal(1.0, 2.0, (count, 6, 6, 3)), tf.float32)

    def network(*layers):
        inputs = x = keras.Input((6, 6, 3))
        for width, norm in layers:
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(norm()(x))
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(5)(x))

    BATCH, ATTENTIVE = BatchNormalization, functools.partial(AttentiveNormalization, 3)

    def in_threads(work, threads):
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, range(threads)))
""")

REQUESTS = textwrap.dedent("""
    kind, path = sys.argv[1:]
    models = [
        network((8, BATCH), (256, BATCH)),
        network((64, BATCH), (4, BATCH)),
        network((32, ATTENTIVE), (96, BATCH)),
    ]
    for model in models:
        model(images(0, 16), training=True)  # moves the statistics

    def signatures(models):
        archive = keras.export.ExportArchive()
        for model in models:
            archive.track(model)
            spec = [tf.TensorSpec((None, 6, 6, 3), name="images")]
            archive.add_endpoint(model.name, functools.partial(model), spec)
        archive.write_out(path, verbose=False)
        loaded = tf.saved_model.load(path)
        found = [loaded.signatures[model.name] for model in models]
        return [lambda x, f=f: f(images=x)["output_0"] for f in found], loaded

    def eager(models):
        return [functools.partial(model, training=False) for model in models], models

    functions, kept = {"eager": eager, "export": signatures}[kind](models)
    inputs = [images(seed, 1 + seed % 4) for seed in range(12)]
    expected = [[f(x).numpy() for x in inputs] for f in functions]

    def ask(thread):
        which = thread % len(functions)
        for request in range(200):
            i = (thread + 5 * request) % len(inputs)
            answer = functions[which](inputs[i]).numpy()
            np.testing.assert_array_equal(answer, expected[which][i])

    in_threads(ask, 8)
    print("answered")
""")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("eager", marks=pytest.mark.long),
        pytest.param("export", marks=pytest.mark.slow),
    ],
)
def test_parallel_requests_give_the_same_results_as_sequential_ones(
    kind, command, tmp_path
):
    arguments = ("-c", NETWORKS + REQUESTS, kind, tmp_path / "export")
    assert "answered" in command(*arguments, env=ONEDNN).stdout


TRAINING = textwrap.dedent("""
    models = [network((width, BATCH), (16, ATTENTIVE), (512 // width, BATCH))
              for width in (2, 8, 64, 256)]
    x, y = images(0, 4), tf.constant([[0.0, 1.0, 2.0, 3.0, 4.0]] * 4)

    def train(thread):
        model = models[thread]
        optimizer = keras.optimizers.SGD(0.01)
        optimizer.build(model.trainable_variables)
        for _ in range(6):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            variables = [v.value for v in model.trainable_variables]
            gradients = tape.gradient(loss, variables)
            optimizer.apply(gradients, model.trainable_variables)
        return model.get_weights()

    start = [model.get_weights() for model in models]
    alone = [train(thread) for thread in range(len(models))]
    for model, weights in zip(models, start, strict=True):
        model.set_weights(weights)
    together = in_threads(train, len(models))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    print("trained")
""")


@pytest.mark.slow
def test_models_trained_eagerly_in_threads_equal_those_trained_alone(command):
    assert "trained" in command("-c", NETWORKS + TRAINING, env=ONEDNN).stdout
