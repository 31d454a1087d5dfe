"""Converts the authors' checkpoints to weights files and verifies the result.

Two differences are measured on equal input: between every layer and PyTorch's own
operations on the checkpoint's arrays, and between the converted network and one that
reads the new file.
"""

import dataclasses
import os
import pathlib
import tempfile

import keras
import numpy as np
from keras import layers, ops

from an_keras import AttentiveNormalization, BatchNormalization
from model_zoo.registry import create_model, model_info
from model_zoo.torch_checkpoint import (
    LoadReport,
    load_torch_checkpoint,
    number_of_classes,
)
from model_zoo.torch_file import read_torch_file, state_dict

SUFFIX = ".weights.h5"
TOLERANCE = 1e-4  # float32, relative to the largest output


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The result of a conversion and of its verification.

    Attributes:
        report: Which variable came from which key.
        parameters: Number of parameters in the file.
        classes: Number of classes of the classifier.
        layers: Number of layers compared with PyTorch.
        layer_difference: Largest difference of any layer, relative to its largest
            output.
        layer: Name of the layer with that difference.
        file_difference: Largest difference between the logits of the network and of
            one that read the file.
        logits_std: Standard deviation of these logits.
    """

    report: LoadReport
    parameters: int
    classes: int
    layers: int
    layer_difference: float
    layer: str
    file_difference: float
    logits_std: float


def convert(checkpoint, name: str, out, **options) -> Conversion:
    """Converts a `.pth` file to a `.weights.h5` file.

    Args:
        checkpoint: Path of the `.pth` or `.pth.tar` file. Needs the extra `convert`.
        name: Name of the network. Its classes are those of the checkpoint.
        out: File to write, `*.weights.h5`. It appears only after verification.
        **options: Further arguments of `create_model`, such as `position="all"`.

    Raises:
        ValueError: If `out` exists or cannot be written, the checkpoint is refused or
            belongs to another network, or a difference exceeds 1e-4.
        ImportError: If PyTorch is missing.
    """
    out = pathlib.Path(os.fspath(out))
    if not out.name.endswith(SUFFIX) or out.exists() or not out.parent.is_dir():
        raise ValueError(
            f"The output must be a new file *{SUFFIX} in an existing directory. "
            f"Received: {str(out)!r}."
        )
    model_info(name)
    arrays = state_dict(read_torch_file(checkpoint))
    classes = number_of_classes(arrays)
    options |= {"classes": classes, "classifier_activation": None}
    model = create_model(name, **options)
    report = load_torch_checkpoint(model, arrays)
    differences = layer_differences(model, report, arrays)
    worst = max(differences, key=differences.get)
    with tempfile.TemporaryDirectory(dir=out.parent) as directory:
        aside = pathlib.Path(directory) / out.name
        model.save_weights(aside)
        images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
        logits, again = (
            ops.convert_to_numpy(network(images.astype("float32")))
            for network in (model, create_model(name, weights=aside, **options))
        )
        result = Conversion(
            report=report,
            parameters=model.count_params(),
            classes=classes,
            layers=len(differences),
            layer_difference=differences[worst],
            layer=worst,
            file_difference=float(np.abs(again - logits).max()),
            logits_std=float(logits.std()),
        )
        limit = TOLERANCE * result.logits_std
        if not (
            result.layer_difference <= TOLERANCE and result.file_difference <= limit
        ):
            raise ValueError(
                "The converted network differs; nothing was written. Layer "
                f"{result.layer}: {result.layer_difference:.1e}; logits of the file: "
                f"{result.file_difference:.1e}; their standard deviation: "
                f"{result.logits_std:.1e}."
            )
        os.replace(aside, out)
    return result


def layer_differences(model: keras.Model, report: LoadReport, arrays: dict) -> dict:
    """Returns max |Keras - PyTorch| / max |PyTorch| by layer on equal random input."""
    import torch

    generator = np.random.default_rng(0)
    differences = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        shape = [size or 9 for size in layer.input.shape[1:]]
        x = generator.normal(size=(2, *shape)).astype("float32")
        weights = {
            variable.path.removeprefix(f"{layer.name}/"): torch.from_numpy(
                np.array(arrays[report.loaded[variable.path]], "float32")
            )
            for variable in layer.weights
        }
        channels_first = [0, len(shape), *range(1, len(shape))]
        inputs = torch.from_numpy(x.transpose(channels_first))
        theirs = _in_pytorch(layer, inputs, weights).numpy()
        ours = ops.convert_to_numpy(layer(x)).transpose(channels_first)
        largest = max(np.abs(theirs).max(), np.finfo("float32").tiny)  # may be all 0
        differences[layer.name] = float(np.abs(ours - theirs).max() / largest)
    return differences


def _in_pytorch(layer, x, weights):
    """Runs a layer in inference with PyTorch; `x` is (N, C, H, W) or (N, C)."""
    import torch
    from torch.nn import functional

    def batch_norm(x, prefix="", affine=True):
        names = ["moving_mean", "moving_variance"] + ["gamma", "beta"] * affine
        arrays = [weights[prefix + name] for name in names]
        return functional.batch_norm(x, *arrays, eps=layer.epsilon)

    def group_norm(x, *affine):
        return functional.group_norm(x, layer.groups, *affine, eps=layer.epsilon)

    def project(s, prefix):
        kernel = weights[f"{prefix}kernel"].flatten(1)
        s = functional.linear(s, kernel, weights.get(f"{prefix}bias"))
        return batch_norm(s, prefix) if layer.gate.normalization else s

    match layer:
        case layers.Conv2D() | layers.DepthwiseConv2D():
            kernel = weights["kernel"]
            padding = (kernel.shape[-1] - 1) // 2 if layer.padding == "same" else 0
            groups = x.shape[1] // kernel.shape[1]
            return functional.conv2d(
                x, kernel, stride=layer.strides, padding=padding, groups=groups
            )
        case layers.Dense():
            return functional.linear(x, weights["kernel"], weights["bias"])
        case BatchNormalization():
            return batch_norm(x)
        case layers.GroupNormalization():
            return group_norm(x, weights["gamma"], weights["beta"])
        case AttentiveNormalization():
            variance, mean = torch.var_mean(x, (2, 3))
            s = mean * torch.rsqrt(variance + layer.descriptor_epsilon)
            if layer.gate_hidden_units:
                s = torch.relu(project(s, "gate/hidden_"))
            name = layer.gate_activation.__name__
            options = {"dim": -1} if name == "softmax" else {}
            activate = getattr(functional, name.replace("hard_s", "hards"))
            attention = activate(project(s, "gate/"), **options)
            gamma, beta = attention @ weights["gamma"], attention @ weights["beta"]
            grouped = layer.normalization == "group"
            x = group_norm(x) if grouped else batch_norm(x, affine=False)
            return gamma[..., None, None] * x + beta[..., None, None]
