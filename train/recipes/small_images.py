"""Small networks on CIFAR-10, CIFAR-100 and SVHN, for one GPU or a patient CPU.

Batch, rate, L2, epochs, shifts and, for CIFAR, flips are those of ResNets on CIFAR-10
(He et al. 2016, section 4.2: 64,000 steps, which are 182 epochs), with an epoch of
warm-up and a cosine instead of steps. Nothing was published for AN. One GPU suffices.
"""

import functools

from train.config import Data, Model, Optimizer, Recipe

DATA = {  # name in tensorflow-datasets, mean and standard deviation of its pixels
    "cifar10": ("cifar10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ("svhn_cropped", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
NETWORKS = (
    *("resnet20", "resnet32", "resnet44", "resnet56"),
    *("resnet29", "resnet164", "aognet_cifar"),
)


def small_images(data: str, model: str) -> Recipe:
    """Digits of SVHN are not mirrored."""
    name, mean, std = DATA[data]
    return Recipe(
        model=Model(model),
        data=Data(name, mean=mean, std=std, shift=4, flip=data != "svhn"),
        optimizer=Optimizer(learning_rate=0.2, weight_decay=1e-4, warmup_epochs=1),
        batch_size=128,
        epochs=182,
    )


RECIPES = {
    f"{data}_{network}_{kind}": functools.partial(
        small_images, data, f"{network}_{kind}"
    )
    for data in DATA
    for network in NETWORKS
    for kind in ("an", "bn")
}
