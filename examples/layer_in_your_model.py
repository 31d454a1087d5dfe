"""The layer in a model of your own, trained with `fit` on scans of digits.

    python examples/layer_in_your_model.py

Shows augmentation by a layer of Keras, the usual callbacks, the attention of some
images after training, and a `.keras` file. It needs scikit-learn and runs on every
backend of Keras (`KERAS_BACKEND=jax python ...`); with TensorFlow, it takes less than a
minute on two CPU cores. Writes `digits.keras` and `log.csv` into the directory `--out`.
"""

import argparse
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from sklearn.datasets import load_digits

from an_keras import AttentiveNormalization, collect_attention


def build_model() -> keras.Model:
    """Returns a network for scans of 8x8 pixels with values from 0 to 16."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 8, offset=-1)(inputs)
    # augments in training only; -1 is the background
    shift = keras.layers.RandomTranslation(
        0.1, 0.1, fill_mode="constant", fill_value=-1.0
    )
    x = shift(x)
    for i, (filters, strides) in enumerate([(32, 1), (64, 2), (64, 1)]):
        x = keras.layers.Conv2D(
            filters, 3, strides, padding="same", use_bias=False, name=f"conv{i}"
        )(x)
        x = AttentiveNormalization(num_components=5, name=f"norm{i}")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def print_attention(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Prints the weights of the components: one row for each image and layer."""
    for path, weights in collect_attention(model, images).items():
        print(f"attention of {path}")
        for label, row in zip(labels, keras.ops.convert_to_numpy(weights), strict=True):
            print(f"  a scan of {label}:", *(f"{weight:.2f}" for weight in row))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15, help="at most (15)")
    parser.add_argument("--out", type=pathlib.Path, default="runs/layer_in_your_model")
    flags = parser.parse_args(arguments)
    flags.out.mkdir(parents=True, exist_ok=True)
    file = flags.out / "digits.keras"

    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32")
    x, y = images[:1200], labels[:1200]
    validation = images[1200:1500], labels[1200:1500]
    test_x, test_y = images[1500:], labels[1500:]

    model = build_model()
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    callbacks = [
        keras.callbacks.ReduceLROnPlateau(factor=0.3, patience=2, verbose=1),
        keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(file, save_best_only=True),
        keras.callbacks.CSVLogger(flags.out / "log.csv"),
    ]
    model.fit(
        x,
        y,
        batch_size=32,
        epochs=flags.epochs,
        validation_data=validation,
        callbacks=callbacks,
        verbose=2,
    )
    _, accuracy = model.evaluate(test_x, test_y, verbose=0)
    print(f"test accuracy {accuracy:.4f} ({len(test_y)} images)")
    print_attention(model, test_x[:3], test_y[:3])

    # in another program, `import an_keras` before this line
    loaded = keras.models.load_model(file)
    outputs = [each.predict(test_x, verbose=0) for each in (model, loaded)]
    print(f"{file}: largest difference {np.abs(np.subtract(*outputs)).max():.1e}")


if __name__ == "__main__":
    main()
