"""The published training on ImageNet-1k: Li, Sun and Wu, ECCV 2020, on 8 GPUs.

`NETWORK_{120,150,200}e` is the training of the paper's code, or of the authors' release
where only that has the network; `*_release` is the release's training of a network that
both have, whose published accuracies are those of checkpoints converted from the
paper's code. `resnet50_an_norm3_120e` and so on have AN at other positions. All were
measured on the validation images, on which the best checkpoint was chosen as well. Each
GPU had 128 images (batch 1024) or 256 (2048), with its own statistics in BN and AN.
"""

import dataclasses
import functools

from train.config import Data, Model, Optimizer, Recipe


@dataclasses.dataclass(frozen=True)
class Training:
    """A row of the published tables; the learning rate is for 256 images."""

    epochs: int
    batch_size: int = 1024
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    extras: bool = False  # label smoothing 0.1 and mixup 0.2


PAPER = {
    "resnet50": (Training(120),),
    "resnet101": (Training(120),),
    "resnet50d": (Training(200, extras=True),),
    "resnet101d": (Training(200, extras=True),),
    "mobilenetv2": (Training(150, learning_rate=0.05, weight_decay=4e-5),),
    "aognet_12m": (Training(120, 2048), Training(200, 2048, extras=True)),
    "aognet_40m": (Training(120), Training(200, extras=True)),
}
# The settings files of the release for 200 epochs differ from its tables, whose names
# and accuracies are those of 200 epochs with the extras. The size of the batch for
# resnet50d is that of resnet50.
RELEASE = {
    **PAPER,
    "resnet34": (Training(120, 2048),),
    "resnet50": (Training(120, 2048),),
    "resnet50d": (Training(200, 2048, extras=True),),
    "densenet121": (Training(120, 2048),),
}
SQUEEZE_EXCITATION = ("resnet34", "resnet50")  # in the release only
OTHER_POSITIONS = {  # in the release only
    "resnet34_an": ("norm12",),
    "resnet50_an": ("norm3", "all"),
    "resnet50_se": ("norm3", "norm123"),
}
# Differences between the paper's BN and AN networks, in 120 epochs.
OF_PAPER = {
    "aognet_12m_bn_120e": {"data": {"interpolation": "bicubic"}},
    "aognet_40m_bn_120e": {"optimizer": {"nesterov": True}},
}
OF_RELEASE = {
    "data": {"mixup_reversed": True},
    "optimizer": {"warmup_from": 0.01, "final_learning_rate": 1e-6},
}


def imagenet(
    model: str,
    training: Training,
    changes: dict | None = None,
    position: str | None = None,
) -> Recipe:
    """SGD with L2 on all weights, five epochs of warm-up, cosine; crops and flips.

    Args:
        model: Name of the network.
        training: The row of the table.
        changes: Further fields of `data` and `optimizer`.
        position: Position of AN or squeeze-and-excitation, if not the usual one.
    """
    fields = {"data": {}, "optimizer": {}, **(changes or {})}
    return Recipe(
        model=Model(model, {"position": position} if position else {}),
        data=Data(
            "imagenet2012",
            image_size=224,
            shorter_side=256,
            min_crop_area=0.08,
            flip=True,
            mixup=0.2 if training.extras else 0.0,
            validation_fraction=0.0,
            **fields["data"],
        ),
        optimizer=Optimizer(
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            **fields["optimizer"],
        ),
        batch_size=training.batch_size,
        epochs=training.epochs,
        label_smoothing=0.1 if training.extras else 0.0,
        precision="mixed_float16",
    )


def _recipes():
    for network, rows in PAPER.items():
        for training in rows:
            for kind in ("an", "bn"):
                name = f"{network}_{kind}_{training.epochs}e"
                yield name, f"{network}_{kind}", training, OF_PAPER.get(name)
    for network, rows in RELEASE.items():
        kinds = ("an", "bn", "se") if network in SQUEEZE_EXCITATION else ("an", "bn")
        for training in rows:
            for kind in kinds:
                is_first = kind == "se" or network not in PAPER
                suffix = "" if is_first else "_release"
                name = f"{network}_{kind}_{training.epochs}e{suffix}"
                yield name, f"{network}_{kind}", training, OF_RELEASE
    for model, positions in OTHER_POSITIONS.items():
        for position in positions:
            name, row = f"{model}_{position}_120e", Training(120, 2048)
            yield name, model, row, OF_RELEASE, position


RECIPES = {
    name: functools.partial(imagenet, *arguments) for name, *arguments in _recipes()
}
