"""Puts AN into a pretrained MobileNetV2 of Keras, and trains it on your classes.

    python examples/finetune_pretrained.py --folder=photos/train --size=224
    python examples/finetune_pretrained.py --weights=none   # without network access

The folder has one subfolder of images for each class; without one, scikit-learn's scans
of digits are used. First the norms and the new head are trained, then everything at a
lower learning rate. Prints the validation accuracy before and after each stage, and
saves a model that takes images with values from 0 to 255. Reading images needs
TensorFlow, whatever the backend.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Sequence

import keras
import numpy as np
from sklearn.datasets import load_digits

from an_keras import convert_normalization, freeze_all_but_normalization

# K by stride, close to the paper's, which gives it by row
COMPONENTS = {2: 5, 4: 5, 8: 5, 16: 10, 32: 10}


def write_digits(folder: pathlib.Path) -> None:
    """Writes the scans as PNG files into one subfolder for each digit."""
    images, labels = load_digits(return_X_y=True)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        directory = folder / str(label)
        directory.mkdir(exist_ok=True)
        image = pixels.reshape(8, 8, 1) * (255 / 16)
        keras.utils.save_img(directory / f"{i:04d}.png", image, scale=False)


def build_model(weights: str | None, size: int, classes: int) -> keras.Model:
    """Returns MobileNetV2 with AN, its preprocessing, and a new head."""
    shape = (size, size, 3)
    original = keras.applications.MobileNetV2(
        input_shape=shape, include_top=False, pooling="avg", weights=weights
    )
    backbone = convert_normalization(original, num_components=COMPONENTS)
    for layer in backbone.layers:
        if hasattr(layer, "moving_mean"):
            # with MobileNetV2's 0.999, your images count only after thousands of steps
            layer.momentum = 0.9
    inputs = keras.Input(shape)
    # as keras.applications.mobilenet_v2.preprocess_input; saved with the model
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Dropout(0.2)(backbone(x))
    head = keras.layers.Dense(classes, activation="softmax", name="predictions")
    return keras.Model(inputs, head(x))


def train(model: keras.Model, learning_rate: float, data: tuple, epochs: int) -> None:
    """Trains what is trainable, and prints how much that is and the accuracy."""
    # after freezing: a compiled model keeps the weights that were trainable before
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    training, validation = data
    weights = sum(int(np.prod(each.shape)) for each in model.trainable_variables)
    print(f"training {weights:,} of {model.count_params():,} weights")
    model.fit(training, epochs=epochs, shuffle=False, verbose=2)  # shuffles itself
    print(f"validation accuracy {model.evaluate(validation, verbose=0)[1]:.4f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", help="images; without it, scans of digits")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, a file")
    parser.add_argument("--size", type=int, default=96, help="pixels per side (96)")
    parser.add_argument("--epochs", type=int, default=3, help="of each stage (3)")
    parser.add_argument("--out", type=pathlib.Path, default="finetuned.keras")
    flags = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)

    with tempfile.TemporaryDirectory() as digits:
        if flags.folder is None:
            write_digits(pathlib.Path(digits))
        data = keras.utils.image_dataset_from_directory(
            flags.folder or digits,
            image_size=(flags.size, flags.size),
            validation_split=0.2,
            subset="both",
            seed=0,
        )
        if len(data[0].class_names) < 2:
            parser.error(f"expected two folders of images or more in {flags.folder}")
        weights = None if flags.weights == "none" else flags.weights
        model = build_model(weights, flags.size, len(data[0].class_names))

        print("with an untrained head")
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        print(f"validation accuracy {model.evaluate(data[1], verbose=0)[1]:.4f}")

        freeze_all_but_normalization(model)
        model.get_layer("predictions").trainable = True
        train(model, 1e-3, data, flags.epochs)

        # TensorFlow's Keras ignores True where it is set already: False comes first
        model.trainable = False
        model.trainable = True
        train(model, 1e-4, data, flags.epochs)

        model.save(flags.out)
        # in another program, `import an_keras` before this line
        loaded = keras.models.load_model(flags.out)
        outputs = [each.predict(data[1], verbose=0) for each in (model, loaded)]
    print(f"{flags.out}: largest difference {np.abs(np.subtract(*outputs)).max():.1e}")


if __name__ == "__main__":
    main()
