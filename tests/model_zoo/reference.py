"""Weights and inputs of the published networks as run by their authors' code."""

import json
import re

import numpy as np
from golden import GOLDEN, weights_rule
from keras import ops

import model_zoo

# Reference case -> our network.
CASES = {
    "resnet50_an": ("resnet50_an", {}),
    "resnet50_bn": ("resnet50_bn", {}),
    "resnet50_an_all": ("resnet50_an", {"position": "all"}),
    "mobilenetv2_an": ("mobilenetv2_an", {}),
    "densenet121_an": ("densenet121_an", {}),
    "aognet_12m_an": ("aognet_12m_an", {}),
    "aognet_12m_bn": ("aognet_12m_bn", {}),
}


def read(case: str):
    """Returns the numbers and the arrays of a reference case."""
    arrays = np.load(GOLDEN / f"{case}.npz")
    return json.loads((GOLDEN / f"{case}.json").read_text()), arrays


def checkpoint(case: str) -> dict:
    """Returns the weights of a reference case, named as in the authors' code."""
    state = read(case)[0]["state"]
    return {key: weights_rule.tensor(key, shape) for key, shape, _ in state}


def build(case: str, **kwargs):
    """Builds our network with the weights of a reference case; it returns logits."""
    name, options = CASES[case]
    model = model_zoo.create_model(
        name, classifier_activation=None, **options, **kwargs
    )
    return model, model_zoo.load_torch_checkpoint(model, checkpoint(case))


def images(tag: str, number: int, size: int):
    """Returns float32 images, (N, size, size, 3)."""
    return weights_rule.image(tag, number, size).transpose(0, 2, 3, 1)


def fill(model) -> None:
    """Fills any network with numbers of `weights_rule`, by the roles of its weights."""
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
        }[role.removeprefix("hidden_")]
        key = f"{'.'.join(module)}.{leaf}"
        if len(shape) == 4:
            variable.assign(
                weights_rule.tensor(key, shape[::-1]).transpose(2, 3, 1, 0)
                if shape[-1] > 1
                else weights_rule.tensor(key, (shape[2], 1, *shape[:2])).transpose(
                    2, 3, 0, 1
                )
            )
        elif role.endswith("kernel"):
            variable.assign(weights_rule.tensor(key, shape[::-1]).T)
        else:
            variable.assign(weights_rule.tensor(key, shape))


def as_checkpoint(model):
    """Returns the weights of a basic-block ResNet, named and laid out as AOGNet-v2."""
    leaves = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    leaves |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    state = {}
    for variable in model.weights:
        layer, *gate, name = variable.path.split("/")
        array = ops.convert_to_numpy(variable)
        layer = re.sub(r"^stem_(conv|norm)$", r"\g<1>1", layer)
        layer = re.sub(
            r"^stage(\d)_block(\d+)_",
            lambda m: f"layer{m[1]}.{int(m[2]) - 1}.",
            layer,
        )
        layer = layer.replace("norm", "bn").replace("predictions", "fc")
        layer = layer.replace("shortcut_conv", "downsample.0")
        layer = layer.replace("shortcut_bn", "downsample.1")
        if gate:
            owner = model.get_layer(variable.path.split("/")[0])
            hidden = owner.gate.hidden_units
            first = name.startswith("hidden_") or not hidden
            name = name.removeprefix("hidden_")
            norm = name not in ("kernel", "bias")
            normalized = owner.gate.normalization is not None
            index = norm if first else (4 if norm else 3 if normalized else 2)
            leaf = f"attention_weights.attention.{int(index)}.{leaves[name]}"
            if name == "kernel":
                array = array.T[:, :, None, None]
        else:
            leaf = leaves[name] + ("_" if array.ndim == 2 and name != "kernel" else "")
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            elif name == "kernel":
                array = array.T
        state[f"{layer}.{leaf}"] = array
    return state
