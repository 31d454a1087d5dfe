"""Loads the authors' PyTorch checkpoints into our networks.

Both of their code bases are supported, AOGNet-v2 and iVMCL-Release. A key of a
checkpoint is a module and a leaf, `layer1.0.bn2.weight_`: one table maps modules to our
layers, another maps leaves to our variables.
"""

import dataclasses
import os
import re
from collections.abc import Mapping

import keras
import numpy as np

from model_zoo.blocks import HEAD
from model_zoo.mobilenet_v2 import ROWS
from model_zoo.torch_file import printable, read_torch_file, state_dict
from model_zoo.weights import require_usable

# {kind} is "conv" for a kernel and "norm" for the rest. {block} and {stage} count from
# 1; `index` and `stage_index` count from 0. A module may match several rows; the first
# layer that the network has is used.
_NORM = r"(?:bn|gn|AttnBN2d|AttnGN2d|AttnGN)"
_PART = rf"(?:conv|{_NORM})"
_WRAPPED = r"(?:conv_norm\.)+[0-2]"
_BLOCK = r"layer(?P<stage>\d)\.(?P<index>\d+)"
_AOG_STAGE = r"stage(?P<stage_index>\d)\.stage_\d_block_(?P<index>\d+)"  # AOGNet-v2
_AOG_NODE = rf"{_AOG_STAGE}\.\w+_node_(?P<node>\d+)_op"
_RELEASED_NODE = (
    r"layer\d\.\d+\.stage_(?P<stage>\d)_block_(?P<block>\d+)_node_(?P<node>\d+)_op"
)
MODULES = (
    # Stems of ResNet-A, MobileNetV2 and DenseNet; of ResNet-B
    (rf"{_PART}1|stem\.[01]|stem\.conv1\.{_PART}1?", "stem_{kind}"),
    (r"(?:conv1|stem)\.[01]", "stem_{kind}1"),
    (r"(?:conv1|stem)\.[34]", "stem_{kind}2"),
    (rf"(?:conv1|stem)\.[67]|{_NORM}1", "stem_{kind}3"),
    # ResNet, ResNeXt
    (rf"{_BLOCK}\.{_PART}(?P<n>\d)", "stage{stage}_block{block}_{kind}{n}"),
    (rf"{_BLOCK}\.downsample\.\d", "stage{stage}_block{block}_shortcut_{kind}"),
    # MobileNetV2; without expansion, the depthwise convolution comes first
    (rf"{_BLOCK}\.conv\.0\.\d", "stage{stage}_block{block}_{kind}1"),
    (rf"{_BLOCK}\.conv\.[01]\.\d", "stage{stage}_block{block}_{kind}2"),
    (rf"{_BLOCK}\.conv\.[123]", "stage{stage}_block{block}_{kind}3"),
    (r"layer7\.1\.[01]", "last_{kind}"),
    # DenseNet
    (
        rf"layer(?P<stage>\d)\.0\.denselayer(?P<number>\d+)\.{_PART}(?P<n>\d)",
        "stage{stage}_block{number}_{kind}{n}",
    ),
    (rf"layer(?P<stage>\d)\.1\.{_PART}1?", "transition{stage}_{kind}"),
    (r"layer4\.1", "last_{kind}"),
    # AOGNet, whose convolutions and norms are wrapped several times in AOGNet-v2
    (rf"stem\.(?P<index>\d)\.{_WRAPPED}", "stem_{kind}{block}"),
    (rf"stem\.conv1\.(?P<index>\d)\.{_PART}", "stem_{kind}{block}"),
    (rf"{_AOG_STAGE}_transition\.0\.{_WRAPPED}", "stage{stage}_transition_{kind}"),
    (rf"{_BLOCK}\.transition\.0\.{_PART}", "stage{stage}_transition_{kind}"),
    (
        rf"{_AOG_NODE}\.conv_norm_(?:ac_)?(?P<n>\d)\.{_WRAPPED}",
        "stage{stage}_block{block}_node{node}_{kind}{n}",
    ),
    (
        rf"{_RELEASED_NODE}\.{_PART}(?P<n>\d)",
        "stage{stage}_block{block}_node{node}_{kind}{n}",
    ),
    (
        rf"{_AOG_NODE}\.shortcut\.{_WRAPPED}",
        "stage{stage}_block{block}_node{node}_shortcut_{kind}",
    ),
    (
        rf"{_RELEASED_NODE}\.downsample\.{_PART}",
        "stage{stage}_block{block}_node{node}_shortcut_{kind}",
    ),
    (rf"{_AOG_STAGE}\.extra_norm_ac\.0", "stage{stage}_block{block}_norm"),
    (
        r"layer(?P<stage>\d)\.(?P<odd>\d+)\.extra_norm_ac\.0",
        "stage{stage}_block{block}_norm",
    ),
    # All networks
    (r"fc|classifier(?:\.1)?", HEAD),
)

# In the gate's stack, 0 and 1 are the hidden projection and its norm, if any.
LEAVES = (
    (r"weight", ("kernel", "gamma")),
    (r"bias", ("bias", "beta")),
    (r"weight_", ("gamma",)),
    (r"bias_", ("beta",)),
    (r"running_mean", ("moving_mean",)),
    (r"running_var", ("moving_variance",)),
    (r"GATE\.0\.weight", ("gate/hidden_kernel", "gate/kernel")),
    (r"GATE\.0\.bias", ("gate/hidden_bias", "gate/bias")),
    (r"GATE\.1\.weight", ("gate/hidden_gamma", "gate/gamma")),
    (r"GATE\.1\.bias", ("gate/hidden_beta", "gate/beta")),
    (r"GATE\.1\.running_mean", ("gate/hidden_moving_mean", "gate/moving_mean")),
    (r"GATE\.1\.running_var", ("gate/hidden_moving_variance", "gate/moving_variance")),
    (r"GATE\.[23]\.weight", ("gate/kernel",)),
    (r"GATE\.[23]\.bias", ("gate/bias",)),
    (r"GATE\.4\.weight", ("gate/gamma",)),
    (r"GATE\.4\.bias", ("gate/beta",)),
    (r"GATE\.4\.running_mean", ("gate/moving_mean",)),
    (r"GATE\.4\.running_var", ("gate/moving_variance",)),
)
_KEY = re.compile(
    r"(?P<module>.+?)\."
    r"(?P<leaf>(?:(?:attention_weights|attn_weights)\.attention\.\d\.)?[^.]+)"
)

# AOGNet-v2 numbers the blocks of MobileNetV2 across all stages.
_FEATURES = [
    "stem",
    *(f"layer{i + 1}.{j}" for i, row in enumerate(ROWS) for j in range(row[2])),
    "layer7.1",
]


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What `load_torch_checkpoint` did.

    Attributes:
        loaded: Path of each variable -> the checkpoint key that filled it.
        skipped: Keys that fill no variable: batch counters and, with `head="new"`, the
            classifier.
        new_head: Whether the model kept its own classifier.
    """

    loaded: dict[str, str]
    skipped: list[str]
    new_head: bool


def load_torch_checkpoint(
    model: keras.Model,
    path_or_dict: str | os.PathLike | Mapping,
    head: str = "strict",
) -> LoadReport:
    """Loads a checkpoint of the authors strictly into a published network.

    Convolutions (O, I, h, w) become (h, w, I, O), depthwise ones (C, 1, h, w) become
    (h, w, C, 1), linear ones (O, I) become (I, O); mixture tables stay (K, C). Half
    precision is converted to the model's precision. The model is not changed unless
    everything fits.

    Args:
        model: A network from `create_model`, of the checkpoint's variant.
        path_or_dict: A `.pth` or `.pth.tar` file, from which only tensors and plain
            values are read (needs the extra `convert`), or a dictionary of arrays by
            key. Dictionaries around the weights (`state_dict`, `model`) and the
            prefixes `module.` and `network.` are removed.
        head: `"strict"` loads the classifier too; `"new"` keeps the model's own.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the file is damaged, is not a checkpoint or contains code, keys
            are missing or left over, shapes differ, or numbers are not finite.
        ImportError: If a file is given and PyTorch is missing or older than 2.10.
    """
    if head not in ("strict", "new"):
        raise ValueError(f"`head` must be 'strict' or 'new'. Received: head={head!r}.")
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: {model!r}.")
    if not isinstance(path_or_dict, (str, os.PathLike, Mapping)):
        raise TypeError(
            "`path_or_dict` must be the path of a file or a dictionary of arrays. "
            f"Received: {path_or_dict!r}."
        )
    if not isinstance(path_or_dict, Mapping):
        path_or_dict = read_torch_file(path_or_dict)
    variables = {variable.path: variable for variable in model.weights}
    if head == "new":
        variables = {
            path: variable
            for path, variable in variables.items()
            if not path.startswith(f"{HEAD}/")
        }
    arrays, loaded, skipped, problems = {}, {}, [], []
    for key, value in state_dict(path_or_dict).items():
        shown = printable(key)
        if key.endswith("num_batches_tracked"):
            skipped.append(key)
            continue
        paths = list(_paths(key, value))
        if head == "new" and paths and paths[0].startswith(f"{HEAD}/"):
            skipped.append(key)
            continue
        path = next((path for path in paths if path in variables), None)
        if path is None:
            hint = ""
            if paths and paths[0].startswith(f"{HEAD}/"):
                hint = '; head="new" leaves it out'
            problems.append(f"{shown}: the network has no such variable{hint}")
        elif path in loaded:
            problems.append(f"{shown}: {path} is already filled by {loaded[path]}")
        else:
            loaded[path] = key
            try:
                arrays[path] = to_keras(value, variables[path])
            except ValueError as error:
                problems.append(f"{shown}: {error}")
    problems += [f"{path}: not in the checkpoint" for path in variables.keys() - loaded]
    if problems:
        raise ValueError(
            f"The checkpoint does not match {model.name}; nothing was loaded. "
            f"{len(problems)} differences: {'; '.join(sorted(problems)[:5])}"
            + (" ..." if len(problems) > 5 else "")
        )
    for path, array in arrays.items():
        variables[path].assign(array)
    return LoadReport(loaded, skipped, new_head=head == "new")


def number_of_classes(arrays: Mapping) -> int:
    """Returns the number of classes of the classifier in a `state_dict`.

    Raises:
        ValueError: If there is no classifier, or its arrays do not belong together.
    """
    shapes = {
        key: array.shape
        for key, array in arrays.items()
        if any(path.startswith(f"{HEAD}/") for path in _paths(key, array))
    }
    if not shapes:
        raise ValueError("The checkpoint has no classifier.")
    classes = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(classes) > 1 or 0 in classes:
        received = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        raise ValueError(
            "The arrays of a classifier must agree on the number of classes, >= 1. "
            f"Received: {received}."
        )
    return classes.pop()


def to_keras(array: np.ndarray, variable) -> np.ndarray:
    """Returns a checkpoint's array in the layout of a variable.

    Raises:
        ValueError: If the array does not fit, or holds anything but finite numbers, or
            negative variances.
    """
    expected, received = tuple(variable.shape), array.shape
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"holds {array.dtype}, expected floating point")
    if variable.name.endswith("kernel"):
        if len(expected) == 2 and "/gate/" in variable.path and received[2:] == (1, 1):
            array = array[:, :, 0, 0]  # the gate's projection is a 1x1 convolution
        if array.ndim == 4:
            depthwise = received[1] == 1 and expected[-1] == 1
            array = array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        elif array.ndim == 2:
            array = array.T
    if array.shape != expected:
        raise ValueError(f"shape {received} does not fit {variable.path} {expected}")
    with np.errstate(over="ignore"):
        array = array.astype(keras.backend.standardize_dtype(variable.dtype))
    require_usable(array, variable)
    return array


def _paths(key: str, array: np.ndarray):
    """Yields paths of the variables that a key may refer to, the likeliest first."""
    features = re.match(r"features\.(\d+)\.", key)
    if features and int(features[1]) < len(_FEATURES):
        key = f"{_FEATURES[int(features[1])]}.{key[features.end() :]}"
    parts = _KEY.fullmatch(key)
    if not parts:
        return
    leaf = re.sub(r"^att\w+\.attention", "GATE", parts["leaf"])
    kind = "conv" if leaf == "weight" and array.ndim == 4 else "norm"
    variables = next((names for rule, names in LEAVES if re.fullmatch(rule, leaf)), ())
    for rule, layer in MODULES:
        if module := re.fullmatch(rule, parts["module"]):
            name = layer.format(kind=kind, **_counted_from_1(module))
            for variable in variables:
                yield f"{name}/{variable}"


def _counted_from_1(module):
    """Returns the groups of a module's name, with stage and block counted from 1."""
    groups = module.groupdict()
    if "index" in groups:
        groups["block"] = int(groups["index"]) + 1
    if "stage_index" in groups:
        groups["stage"] = int(groups["stage_index"]) + 1
    if "odd" in groups:  # iVMCL-Release has a transition, or nothing, at even places
        groups["block"] = int(groups["odd"]) // 2 + 1
    return groups
