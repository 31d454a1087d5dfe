"""Your own photos: a few hundred to a few thousand images, a folder per class.

docs/images.md says what to change; there are no published results to compare with. A
few CPU cores suffice, a GPU is faster.
"""

from train.config import Data, Model, Optimizer, Recipe


def photos() -> Recipe:
    """ResNet-18 from scratch at 64 pixels; normalized as for ImageNet."""
    return Recipe(
        model=Model("resnet18_an"),
        data=Data("folder:photos", image_size=64, min_crop_area=0.35, flip=True),
        optimizer=Optimizer(learning_rate=0.2, weight_decay=5e-4, warmup_epochs=5),
        batch_size=32,
        epochs=60,
        evaluate_every=5,
        label_smoothing=0.1,
    )


RECIPES = {"photos": photos}
