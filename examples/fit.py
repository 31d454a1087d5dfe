"""Trains a network of the zoo with `keras.Model.fit`, on any backend of Keras.

    KERAS_BACKEND=jax python examples/fit.py resnet20_an --data DIR --epochs 3

`--data` is a directory with the four idx files of MNIST or one of its successors,
gzipped or not, or an .npz file with x_train, y_train, x_test and y_test, as those of
`keras.datasets`. Optimizer and schedule are the published ones; images are mixed in
pairs (`--mixup`), mirrored, and cropped at random from their padded selves (`--shift`).

`python -m train` needs TensorFlow, and does more: it resumes exactly where it stopped,
keeps the weights that are best on validation images, trains on several devices and
machines, reads data sets larger than memory, and exports for serving.
"""

import argparse
import csv
import gzip
import json
import pathlib
import time

import keras
import numpy as np
from keras import layers, ops

import model_zoo

IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@keras.saving.register_keras_serializable(package="fit")
class PublishedSGD(keras.optimizers.SGD):
    """SGD as in PyTorch and the paper: L2 in the gradient, the rate outside.

    g = gradient + l2 * w;  v = momentum * v + g;  w = w - learning_rate * v
    """

    def __init__(self, learning_rate=0.1, momentum=0.9, l2=1e-4, **kwargs):
        super().__init__(learning_rate, momentum, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.momentums[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype) + self.l2 * variable
        update = self.momentum * velocity + gradient
        self.assign(velocity, update)
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * update)

    def get_config(self):
        return {**super().get_config(), "l2": self.l2}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns images (N, H, W, C), uint8, and labels (N,) of .npz or idx files."""
    if path.is_dir():
        arrays = {name: _read_idx(path, stem) for name, stem in IDX.items()}
    else:
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in IDX}
        except (EOFError, LookupError, OSError, ValueError) as error:
            raise SystemExit(
                f"{path}: expected a directory or an .npz file with {', '.join(IDX)}. "
                f"Received: {error}"
            ) from error
    for name in ("x_train", "x_test"):
        images, labels = arrays[name], arrays[f"y{name[1:]}"].reshape(-1)
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise SystemExit(
                f"{path}: expected uint8 images (N, H, W) or (N, H, W, C) in {name}. "
                f"Received: {images.dtype} {images.shape}."
            )
        if len(images) != len(labels) or not len(images):
            raise SystemExit(
                f"{path}: expected one label for each image of {name}. "
                f"Received: {len(images)} images, {len(labels)} labels."
            )
        arrays[name] = images if images.ndim == 4 else images[..., np.newaxis]
        arrays[f"y{name[1:]}"] = labels.astype(np.int32)
    return arrays


def _read_idx(directory, stem):
    path = next(
        (p for p in directory.glob(f"{stem}*") if p.suffix in ("", ".gz")), None
    )
    if path is None:
        raise SystemExit(f"{directory}: expected the file {stem} or {stem}.gz.")
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    shape = np.frombuffer(content, ">i4", content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


class Mixed(keras.utils.PyDataset):
    """Shuffled batches of mixed images and of the labels' mixed probabilities.

    Keras draws lambda ~ Beta(a, a) for each image, `python -m train` for each batch.
    """

    def __init__(self, images, labels, batch_size, alpha):
        super().__init__()
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.mix = layers.MixUp(alpha)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index):
        chosen = self.order[self.batch_size * index :][: self.batch_size]
        batch = {"images": self.images[chosen], "labels": self.labels[chosen]}
        mixed = self.mix(batch, training=True)
        return tuple(map(ops.convert_to_numpy, mixed.values()))

    def on_epoch_end(self):
        self.order = np.random.permutation(len(self.images))


def build(arguments, images: np.ndarray, classes: int) -> keras.Model:
    """Returns a model of pixels 0 to 255 that augments, normalizes and classifies."""
    shape, pixels = images.shape[1:], images / np.float32(255)
    mean = pixels.mean(axis=(0, 1, 2))
    std = np.maximum(pixels.std(axis=(0, 1, 2)), 1 / 255)
    network = model_zoo.create_model(
        arguments.model, input_shape=shape, classes=classes, classifier_activation=None
    )
    inputs = x = keras.Input(shape)
    x = layers.Rescaling((1 / (255 * std)).tolist(), (-mean / std).tolist())(x)
    if arguments.flip:
        x = layers.RandomFlip("horizontal")(x)
    if arguments.shift:
        shifts = [arguments.shift / side for side in shape[:2]]
        x = layers.RandomTranslation(*shifts, "constant", interpolation="nearest")(x)
    return keras.Model(inputs, network(x), name=arguments.model)


def schedule(rate: float, warmup: int, steps: int):
    """Linear warm-up from 0, then half a cosine to 0."""
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup, 1), warmup_target=rate, warmup_steps=warmup
    )


def main(argv=None):
    arguments = parse(argv)
    for path in filter(None, (arguments.csv, arguments.out)):
        if not path.absolute().parent.is_dir():
            raise SystemExit(f"{path}: expected an existing directory.")
    if arguments.out and arguments.out.suffix != ".keras":
        raise SystemExit(f"{arguments.out}: expected a name that ends with .keras.")
    keras.utils.set_random_seed(arguments.seed)
    data = read(arguments.data)
    random = np.random.default_rng(arguments.seed)
    aside = random.permutation(len(data["x_train"])) % 10 == 9  # for validation
    labels = data["y_train"], data["y_test"]
    classes = int(np.concatenate(labels).max()) + 1
    y_train, y_test = (keras.utils.to_categorical(y, classes) for y in labels)
    train = data["x_train"][~aside], y_train[~aside]
    model = build(arguments, train[0], classes)
    steps = -(-len(train[0]) // arguments.batch_size)
    rate = arguments.learning_rate * arguments.batch_size / 256
    model.compile(
        PublishedSGD(
            schedule(
                rate,
                round(arguments.warmup_epochs * steps),
                round(arguments.epochs * steps),
            ),
            l2=arguments.weight_decay,
        ),
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=arguments.label_smoothing
        ),
        metrics=["accuracy", keras.metrics.CategoricalCrossentropy(from_logits=True)],
    )
    if arguments.mixup:
        mixed = Mixed(*train, arguments.batch_size, arguments.mixup)
        given = {"x": mixed}
    else:
        given = dict(zip("xy", train, strict=True), batch_size=arguments.batch_size)
    start = time.perf_counter()
    model.fit(
        **given,
        epochs=arguments.epochs,
        validation_data=(data["x_train"][aside], y_train[aside]),
        verbose=2,
    )
    seconds = time.perf_counter() - start
    _, accuracy, loss = model.evaluate(data["x_test"], y_test, 256, verbose=0)
    results = {
        **{"model": arguments.model, "backend": keras.backend.backend()},
        **{"epochs": arguments.epochs, "seed": arguments.seed, "top1": accuracy},
        **{"loss": loss, "images": len(data["x_test"]), "keras": keras.__version__},
        "images_per_second": len(train[0]) * arguments.epochs / seconds,
    }
    print(json.dumps(results))
    if arguments.csv:
        is_new = not arguments.csv.exists()
        with arguments.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, results)
            writer.writeheader() if is_new else None
            writer.writerow(results)
    if arguments.out:
        model.save(arguments.out)


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "model",
        choices=model_zoo.list_models(),
        metavar="model",
        help="see list_models",
    )
    add("--data", type=pathlib.Path, required=True, help="directory or .npz file")
    add("--epochs", type=int, default=3)
    add("--batch_size", type=int, default=128)
    add("--learning_rate", type=float, default=0.2, help="for 256 images")
    add("--weight_decay", type=float, default=1e-4, help="L2 on all weights")
    add("--warmup_epochs", type=float, default=0.3)
    add("--shift", type=int, default=0, help="padding of the crops, pixels")
    add("--mixup", type=float, default=0.0, help="a of Beta(a, a), at most 1")
    add("--label_smoothing", type=float, default=0.0)
    add("--flip", action=argparse.BooleanOptionalAction, default=True)
    add("--seed", type=int, default=0)
    add("--csv", type=pathlib.Path, help="adds a line with the results to this file")
    add("--out", type=pathlib.Path, help="saves the model to this .keras file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
