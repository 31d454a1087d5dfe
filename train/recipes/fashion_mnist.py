"""Small networks on Fashion-MNIST (70,000 images, Xiao et al. 2017), three epochs.

No comparable published results. For measured results, see README.md. Two CPU cores
suffice.
"""

import functools

from train.config import Data, Model, Optimizer, Recipe

CLASS_NAMES = (  # as in `model_zoo.weight_sets`; `model_zoo` imports Keras
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

NETWORKS = (
    *("resnet20", "resnet32", "resnet44", "resnet56"),
    *("resnet29", "resnet164", "aognet_cifar"),
)


def fashion_mnist(model: str) -> Recipe:
    """Mirrors images; in three epochs, shifts would do more harm than good."""
    return Recipe(
        model=Model(model),
        data=Data(
            "fashion_mnist",
            mean=(0.286,),
            std=(0.353,),
            class_names=CLASS_NAMES,
            flip=True,
        ),
        optimizer=Optimizer(learning_rate=0.2, weight_decay=1e-4, warmup_epochs=0.3),
        batch_size=128,
        epochs=3,
    )


RECIPES = {
    f"fashion_mnist_{model}_{kind}": functools.partial(fashion_mnist, f"{model}_{kind}")
    for model in NETWORKS
    for kind in ("an", "bn")
}
