"""AOGNet: networks whose blocks are And-Or graphs.

Li, Song and Wu, AOGNets: Compositional Grammatical Architectures for Deep Learning,
CVPR 2019; the AN variants are those of Li, Sun and Wu, Attentive Normalization, ECCV
2020. Every node of a block's graph (see `model_zoo.aog_graph`) is a bottleneck. AN
replaces a norm of the nodes that span all units of the block; the others keep BN.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

from keras import layers, ops

from an_keras import arguments
from model_zoo.aog_graph import AND, TERMINAL, AndOrGraph, and_or_graph
from model_zoo.blocks import channel_axis, conv
from model_zoo.network import NetworkSpec, register_network
from model_zoo.norms import Norms
from model_zoo.resnet import pooled_projection, small_stem, stem_3x3


@dataclasses.dataclass(frozen=True, kw_only=True)
class AOGNetSpec(NetworkSpec):
    """An AOGNet.

    Attributes:
        stem: Function that builds the stem.
        widths: Channels of the stem, and those that each stage returns.
        depths: Number of blocks in each stage.
        units: Units of the graph in each stage: the parts of a feature map's channels.
        symmetry_removal, hierarchy: Arguments of `and_or_graph`; the first one for each
            stage.
        strides: Stride of each stage.
        transitions: Whether a transition layer applies the stride of a stage, or else
            the terminal nodes of its first block.
        channel_dropout: The share of the channels that every node drops from its
            convolutions in training, one for all stages or one for each.
    """

    options: ClassVar[tuple[str, ...]] = (*NetworkSpec.options, "channel_dropout")

    stem: Callable = stem_3x3
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    units: tuple[int, ...]
    symmetry_removal: tuple[int, ...]
    hierarchy: int = 4
    strides: tuple[int, ...] = (1, 2, 2, 2)
    transitions: bool = True
    channel_dropout: float | tuple[float, ...] = (0, 0, 0.1, 0.1)

    def features(self, x, norm: Norms):
        rates = self._dropout_rates()
        x = self.stem(x, self.widths[0], norm)
        for i, stride in enumerate(self.strides):
            if self.transitions and stride > 1:
                x = transition(x, stride, norm, i, name=f"stage{i + 1}_transition")
                stride = 1
            for j, filters in enumerate(self.block_widths(i)):
                x = Block(self, i, f"stage{i + 1}_block{j + 1}", norm, rates[i])(
                    x, filters, stride if j == 0 else 1
                )
        return x

    def _dropout_rates(self):
        rates, stages = self.channel_dropout, len(self.depths)
        if not isinstance(rates, (tuple, list)):
            rates = (rates,) * stages
        if len(rates) != stages:
            raise ValueError(
                "`channel_dropout` must be a number or one number for each of the "
                f"{stages} stages. Received: channel_dropout={rates}."
            )
        for rate in rates:
            arguments.require_fraction("channel_dropout", rate)
        return rates

    def graph(self, stage: int) -> AndOrGraph:
        """Returns the And-Or graph of a stage's blocks."""
        removal = self.symmetry_removal[stage]
        return and_or_graph(self.units[stage], removal, self.hierarchy)

    def block_widths(self, stage: int) -> list[int]:
        """Returns the output channels of a stage's blocks, which grow in equal steps.

        The steps are rounded to multiples of the units, ties down.
        """
        first, last = self.widths[stage : stage + 2]
        depth, units = self.depths[stage], self.units[stage]
        step = (last - first) // depth
        rest = step % units
        step += units - rest if rest > units / 2 else -rest
        return [*(first + step * (j + 1) for j in range(depth - 1)), last]


def transition(x, stride: int, norm: Norms, stage: int, name: str):
    """1x1 convolution, norm and ReLU, then average pooling over the stride."""
    x = conv(x, x.shape[channel_axis()], 1, name=f"{name}_conv")
    x = norm(x, "transition", stage, name=f"{name}_norm")
    x = layers.ReLU(name=f"{name}_relu")(x)
    return layers.AveragePooling2D(stride, name=f"{name}_pool")(x)


class Block:
    """An And-Or graph of bottlenecks, and the norm and ReLU after its root."""

    def __init__(
        self, spec: AOGNetSpec, stage: int, name: str, norm: Norms, dropout: float
    ):
        self.units = spec.units[stage]
        self.graph = spec.graph(stage)
        self.stage, self.name, self.norm, self.dropout = stage, name, norm, dropout

    def __call__(self, x, filters: int, stride: int):
        outputs, parts, ends = {}, self._parts(x), self._ends(filters)
        # Terminal nodes first: they only need the input.
        for node in sorted(self.graph.order, key=lambda node: node.kind != TERMINAL):
            name = f"{self.name}_node{node.number}"
            if node.kind == TERMINAL:
                main = shortcut = self._phrase(x, parts, node, f"{name}_in")
            else:
                main, shortcut = self._composed(node, outputs, name)
            outputs[node] = self._bottleneck(
                main,
                shortcut,
                ends[node.last + 1] - ends[node.first],
                stride if node.kind == TERMINAL else 1,
                name,
                part="" if node.width == self.units else "part_",
            )
        x = self.norm(outputs[self.graph.root], "root", self.stage, f"{self.name}_norm")
        return layers.ReLU(name=f"{self.name}_relu")(x)

    def _ends(self, channels):
        """Returns where the channels of each unit end; the first ones take the rest."""
        size, rest = divmod(channels, self.units)
        return [unit * size + min(unit, rest) for unit in range(self.units + 1)]

    def _parts(self, x):
        """Splits the channels of the input among the units.

        The gradient of one split is cheaper than those of overlapping slices.
        """
        ends = self._ends(x.shape[channel_axis()])
        return ops.split(x, ends[1:-1], axis=channel_axis())

    def _phrase(self, x, parts, node, name):
        """Returns the channels of the input that a terminal node reads."""
        if node.width == self.units:
            return x
        return _concatenate(parts[node.first : node.last + 1], name)

    def _composed(self, node, outputs, name):
        """Returns what the convolutions and the shortcut of a node receive.

        AND nodes concatenate their children, OR nodes add them. A child that several
        paths of the graph lead to enters all of their shortcuts, each time scaled down,
        so that it does not count twice. Lateral children are added to the convolutions'
        input, and to the shortcut unless a parent of both nodes has them already.
        """
        graph = self.graph
        combine = _concatenate if node.kind == AND else _add
        children = graph.children(node)
        main = shortcut = combine([outputs[child] for child in children], f"{name}_in")
        shares = [graph.paths[node] / graph.paths[child] for child in children]
        if any(share != 1 for share in shares):
            shortcut = combine(
                [
                    outputs[child] if share == 1 else share * outputs[child]
                    for child, share in zip(children, shares, strict=True)
                ],
                f"{name}_shortcut_in",
            )
        laterals = [outputs[child] for child in graph.laterals(node)]
        shared = [outputs[child] for child in graph.shortcut_laterals(node)]
        return (
            _add([main, *laterals], f"{name}_lateral"),
            _add([shortcut, *shared], f"{name}_shortcut_lateral"),
        )

    def _bottleneck(self, main, shortcut, filters, stride, name, part):
        """Adds 1x1, 3x3 and 1x1 convolutions of `main` to a projection of `shortcut`.

        `part` is "part_" in a node that does not span all units, which keeps BN.
        """
        norm, stage = self.norm, self.stage
        width = max(4, int(filters / 4 + 0.5))
        shortcut = pooled_projection(
            shortcut, filters, stride, norm, stage, f"{name}_shortcut"
        )
        x = conv(main, width, 1, name=f"{name}_conv1")
        x = norm(x, f"{part}norm1", stage, f"{name}_norm1")
        x = layers.ReLU(name=f"{name}_relu1")(x)
        x = conv(x, width, 3, stride, name=f"{name}_conv2")
        x = norm(x, f"{part}norm2", stage, f"{name}_norm2")
        x = layers.ReLU(name=f"{name}_relu2")(x)
        x = conv(x, filters, 1, name=f"{name}_conv3")
        x = norm(x, f"{part}norm3", stage, f"{name}_norm3")
        # Always, as files of weights depend on the order of the layers.
        x = layers.SpatialDropout2D(self.dropout, name=f"{name}_dropout")(x)
        x = layers.Add(name=f"{name}_add")([x, shortcut])
        return layers.ReLU(name=f"{name}_relu3")(x)


def _add(tensors, name):
    return layers.Add(name=name)(tensors) if len(tensors) > 1 else tensors[0]


def _concatenate(tensors, name):
    if len(tensors) == 1:
        return tensors[0]
    return layers.Concatenate(axis=channel_axis(), name=name)(tensors)


# Li et al. 2020, as configured in the authors' code.
IMAGENET = {
    "units": (2, 2, 4, 4),
    "symmetry_removal": (1, 2, 1, 2),
    "num_components": (10, 10, 20, 20),
    "lineage": "Li et al. 2019; AN as in Li et al. 2020",
}
SPECS = {
    "aognet_12m": AOGNetSpec(
        widths=(32, 128, 256, 512, 824), depths=(2, 2, 2, 1), **IMAGENET
    ),
    "aognet_40m": AOGNetSpec(
        widths=(56, 224, 448, 896, 1400), depths=(2, 2, 3, 1), **IMAGENET
    ),
    # No configuration was published: the defaults of the authors' code. No AN variant
    # was, either: K follows the ResNets for small images.
    "aognet_cifar": AOGNetSpec(
        stem=small_stem,
        widths=(16, 64, 128, 256),
        depths=(1, 1, 1),
        units=(4, 4, 4),
        symmetry_removal=(0, 0, 0),
        hierarchy=0,
        strides=(1, 2, 2),
        transitions=False,
        channel_dropout=0,
        num_components=(10, 10, 20),
        input_shape=(32, 32, 3),
        smallest=8,
        classes=10,
        lineage="Li et al. 2019, the defaults of their code (small images)",
    ),
}

for _name, _spec in SPECS.items():
    for _variant in ("bn", "an"):
        register_network(_name, _variant, "aognet", _spec)
