"""Weights of another data set, trained further: all of them, or a part.

`*_norms` trains the norms and the classifier: a few percent of the weights, for little
data. `*_frozen_norms` keeps statistics and tables of the norms, for tiny batches, whose
statistics would be noise. docs/images.md says more; there are no published results. A
few CPU cores suffice.
"""

import functools

from train.config import Data, Model, Optimizer, Recipe


def photos_imagenet(trained: str = "all") -> Recipe:
    """MobileNetV2 with weights of ImageNet, which Keras downloads; fewer epochs."""
    return Recipe(
        model=Model("applications.ANMobileNetV2", weights="imagenet", trained=trained),
        data=Data("folder:photos", image_size=224, min_crop_area=0.35, flip=True),
        optimizer=Optimizer(learning_rate=0.05, weight_decay=1e-4, warmup_epochs=1),
        batch_size=32,
        epochs=15,
        label_smoothing=0.1,
    )


def digits_fashion_mnist(trained: str = "all") -> Recipe:
    """ResNet-20 from clothes to digits: weights of the zoo, nothing to download."""
    return Recipe(
        model=Model("resnet20_an", weights="fashion_mnist", trained=trained),
        data=Data("digits", shift=1),
        optimizer=Optimizer(learning_rate=0.1, weight_decay=5e-4, warmup_epochs=1),
        batch_size=64,
        epochs=15,
        evaluate_every=5,
    )


PARTS = {"": "all", "_norms": "norms", "_frozen_norms": "all_but_norms"}
RECIPES = {
    f"{create.__name__}{suffix}": functools.partial(create, trained)
    for create in (photos_imagenet, digits_fashion_mnist)
    for suffix, trained in PARTS.items()
}
