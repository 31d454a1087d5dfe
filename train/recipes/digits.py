"""ResNet-20 on the 1,797 real 8x8 scans that scikit-learn carries; nothing to download.

Published: nothing comparable. Measured here: see README.md.
python -m train --recipe=digits --workdir=runs/digits"""

from train.config import Data, Model, Optimizer, Recipe


def digits(model: str = "resnet20_an") -> Recipe:
    """The main job. Digits are shifted by a pixel, never mirrored."""
    return Recipe(
        model=Model(model),
        data=Data("digits", mean=(0.305,), std=(0.376,), shift=1),
        optimizer=Optimizer(learning_rate=0.2, weight_decay=5e-4, warmup_epochs=5),
        batch_size=64,
        epochs=60,
        evaluate_every=5,
    )


def digits_bn() -> Recipe:
    """The twin with batch normalization, equal in everything else."""
    return digits("resnet20_bn")


RECIPES = {"digits": digits, "digits_bn": digits_bn}
