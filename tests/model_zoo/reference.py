"""The published networks as their authors' code ran them: weights and inputs."""

import json

import numpy as np
from golden import GOLDEN, weights_rule

import model_zoo

# Reference case -> our network.
CASES = {
    "resnet50_an": ("resnet50_an", {}),
    "resnet50_bn": ("resnet50_bn", {}),
    "resnet50_an_all": ("resnet50_an", {"position": "all"}),
    "mobilenetv2_an": ("mobilenetv2_an", {}),
    "densenet121_an": ("densenet121_an", {}),
}


def read(case: str):
    """What is known of a reference case: numbers, arrays."""
    arrays = np.load(GOLDEN / f"{case}.npz")
    return json.loads((GOLDEN / f"{case}.json").read_text()), arrays


def checkpoint(case: str) -> dict:
    """The weights of a reference case, by the names of the authors' code."""
    state = read(case)[0]["state"]
    return {key: weights_rule.tensor(key, shape) for key, shape, _ in state}


def build(case: str, **kwargs):
    """Our network with the weights of a reference case, returning logits."""
    name, options = CASES[case]
    model = model_zoo.create_model(
        name, classifier_activation=None, **options, **kwargs
    )
    return model, model_zoo.load_torch_checkpoint(model, checkpoint(case))


def images(tag: str, number: int, size: int):
    """(N, size, size, 3), float32."""
    return weights_rule.image(tag, number, size).transpose(0, 2, 3, 1)


def fill(model) -> None:
    """Rule-made weights for any network, by the roles of its variables."""
    for variable in model.weights:
        path, shape = variable.path, tuple(variable.shape)
        *module, role = path.split("/")
        leaf = {
            "kernel": "weight",
            "gamma": "weight_" if len(shape) == 2 else "weight",
            "beta": "bias_" if len(shape) == 2 else "bias",
            "bias": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        }[role]
        key = f"{'.'.join(module)}.{leaf}"
        if len(shape) == 4:
            variable.assign(
                weights_rule.tensor(key, shape[::-1]).transpose(2, 3, 1, 0)
                if shape[-1] > 1
                else weights_rule.tensor(key, (shape[2], 1, *shape[:2])).transpose(
                    2, 3, 0, 1
                )
            )
        elif role == "kernel":
            variable.assign(weights_rule.tensor(key, shape[::-1]).T)
        else:
            variable.assign(weights_rule.tensor(key, shape))
