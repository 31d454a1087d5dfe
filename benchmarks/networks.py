"""Training step and inference of whole networks, on every backend of Keras.

`network` yields (case, {(variant, phase): call}); each call returns when its device has
finished. TensorFlow and JAX functions are compiled once, PyTorch runs eagerly. Only the
backend in use has to be installed.
"""

import functools
import resource
import time

import keras
import numpy as np
from keras import ops

import model_zoo
from an_keras import BatchNormalization
from benchmarks import measure
from model_zoo import flops


def network(settings):
    """Yields the training step and inference of networks with 100 classes."""
    keras.config.set_dtype_policy(settings["policy"])
    for name, (size, batch) in settings["networks"].items():
        images, labels = _examples(size, batch)
        calls = {}
        for variant in measure.NETWORK_VARIANTS:
            train, infer = functions(_network(name, size, variant))
            calls[variant, "training"] = functools.partial(train, images, labels)
            calls[variant, "inference"] = functools.partial(infer, images)
        yield {"case": _case(name, size, batch)}, calls


def footprint(settings):
    """Returns the size of a network, its start-up and the memory that two steps add.

    On a GPU this is GPU memory, otherwise memory of the process beyond the imports.
    """
    keras.config.set_dtype_policy(settings["policy"])
    name, variant = settings["network"], settings["variant"]
    size, batch = settings["networks"][name]
    examples = _examples(size, batch)
    before, start = peak_of_memory(), time.perf_counter()
    model = _network(name, size, variant)
    built = time.perf_counter()
    train, _ = functions(model)
    train(*examples)
    stepped = time.perf_counter()
    train(*examples)
    peak = (peak_of_memory() - before) / 2**20
    work = flops.multiply_adds(model).network / 1e6
    common = {"case": _case(name, size, batch), "variant": variant}
    return [
        {**common, "phase": "parameters", "unit": "", "value": model.count_params()},
        {**common, "phase": "multiply-adds", "unit": "M", "value": work},
        {**common, "phase": "build", "unit": "s", "value": built - start},
        {**common, "phase": "first step", "unit": "s", "value": stepped - built},
        {**common, "phase": "peak memory", "unit": "MiB", "value": peak},
    ]


def _case(name, size, batch):
    return f"{name}, {size} px, batch {batch}"


def _examples(size, batch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 3)).astype("float32")
    return ops.convert_to_tensor(images), ops.convert_to_tensor(
        rng.integers(0, 100, batch)
    )


def _network(name, size, variant):
    options = {"input_shape": (size, size, 3), "classes": 100}
    if variant == "AN":
        return model_zoo.create_model(f"{name}_an", **options)
    bn = model_zoo.create_model(f"{name}_bn", **options)
    if variant == "BN":
        return bn
    return keras.models.clone_model(bn, clone_function=_stock)


def _stock(each):
    """Copies a layer, with Keras' own layer in place of our BatchNormalization."""
    if isinstance(each, BatchNormalization):
        return keras.layers.BatchNormalization.from_config(each.get_config())
    return each.__class__.from_config(each.get_config())


def functions(model):
    """Returns train(images, labels), one SGD step with momentum, and infer(images)."""
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return _FUNCTIONS[keras.backend.backend()](model, optimizer)


def _loss(labels, probabilities):
    return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))


def _tensorflow(model, optimizer):
    import tensorflow as tf

    variables = [variable.value for variable in model.trainable_variables]

    @tf.function
    def train(images, labels):
        with tf.GradientTape() as tape:
            loss = _loss(labels, model(images, training=True))
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function
    def infer(images):
        return model(images, training=False)

    return (
        lambda images, labels: train(images, labels).numpy(),
        lambda images: infer(images).numpy(),
    )


def _jax(model, optimizer):
    import jax

    groups = model.trainable_variables, model.non_trainable_variables
    weights = [[variable.value for variable in group] for group in groups]
    slots = [variable.value for variable in optimizer.variables]

    def loss(trainable, moving, images, labels):
        probabilities, moving = model.stateless_call(
            trainable, moving, images, training=True
        )
        return _loss(labels, probabilities), moving

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, images, labels):
        (trainable, moving), slots = state
        (value, moving), gradients = jax.value_and_grad(loss, has_aux=True)(
            trainable, moving, images, labels
        )
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return value, ([trainable, moving], slots)

    @jax.jit
    def predict(weights, images):
        return model.stateless_call(*weights, images, training=False)[0]

    state = jax.tree.map(jax.numpy.copy, (weights, slots))  # `step` donates its buffers

    def train(images, labels):
        nonlocal state
        value, state = jax.block_until_ready(step(state, images, labels))
        return value

    return train, lambda images: jax.block_until_ready(predict(weights, images))


def _torch(model, optimizer):
    import torch

    def wait():
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def train(images, labels):
        model.zero_grad()
        loss = _loss(labels, model(images, training=True))
        loss.backward()
        variables = model.trainable_variables
        with torch.no_grad():
            optimizer.apply([each.value.grad for each in variables], variables)
        wait()
        return loss

    def infer(images):
        with torch.no_grad():
            model(images, training=False)
        wait()

    return train, infer


_FUNCTIONS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def device():
    """Returns the name of the GPU, or "no GPU"."""
    backend, none = keras.backend.backend(), "no GPU"
    if backend == "jax":
        import jax

        (first, *_) = jax.devices()
        return none if first.platform == "cpu" else first.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else none
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu)["device_name"]
    return none


def peak_of_memory():
    """The peak memory of the GPU, or else of this process, in bytes."""
    if device() == "no GPU":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["peak"]
