"""ResNet-20 on the 1,797 real 8x8 scans in scikit-learn; nothing to download.

No comparable published results. For measured results, see README.md. Two CPU cores
suffice.
"""

from train.config import Data, Model, Optimizer, Recipe


def digits(model: str = "resnet20_an") -> Recipe:
    """The main recipe. Digits are shifted by up to a pixel, but not mirrored."""
    return Recipe(
        model=Model(model),
        data=Data("digits", mean=(0.305,), std=(0.376,), shift=1),
        optimizer=Optimizer(learning_rate=0.2, weight_decay=5e-4, warmup_epochs=5),
        batch_size=64,
        epochs=60,
        evaluate_every=5,
    )


def digits_bn() -> Recipe:
    """The same recipe with batch normalization."""
    return digits("resnet20_bn")


RECIPES = {"digits": digits, "digits_bn": digits_bn}
