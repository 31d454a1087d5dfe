"""Draws the And-Or graphs of an AOGNet; needs matplotlib."""

import os
from collections.abc import Iterable

from model_zoo.aog_graph import AND, OR, TERMINAL, AndOrGraph

SHAPES = {OR: "circle", AND: "round", TERMINAL: "square"}
COLORS = {OR: "#d9e6f5", AND: "#fbe3c6", TERMINAL: "#e3efda"}
LATERAL = "#b03a2e"
NODE = 0.75  # inches between nodes
LEGEND = (
    "circle: OR node, rounded: AND node, square: terminal node\n"
    "12: 0-1 is node 12, which spans the units 0 and 1\n"
    "thick: spans all units, has AN in AN networks; red: lateral connection"
)


def draw(stages: Iterable[AndOrGraph], path: str | os.PathLike) -> None:
    """Writes a figure with a panel for each graph; equal ones share a panel.

    The root is at the top. Arrows point from children to parents, as features do.

    Args:
        stages: The graph of each stage.
        path: Image file; matplotlib chooses the format by its suffix.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is no suffix, or matplotlib does not know it.
    """
    if not os.path.splitext(path)[1]:
        raise ValueError(
            "Expected an image file with a suffix, such as graph.png. "
            f"Received: {os.fspath(path)!r}."
        )
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Drawing needs matplotlib. Expected: pip install matplotlib."
        ) from error
    numbers = {}
    for number, graph in enumerate(stages, 1):
        numbers.setdefault(graph, []).append(str(number))
    places = {graph: _places(graph) for graph in numbers}
    widths = [1 + max(x for x, _ in each.values()) for each in places.values()]
    height = 1 - min(y for each in places.values() for _, y in each.values())
    figure = Figure((NODE * sum(widths), NODE * height))
    panels = figure.subplots(1, len(places), width_ratios=widths, squeeze=False)[0]
    for graph, panel in zip(places, panels, strict=True):
        plural = "s" if len(numbers[graph]) > 1 else ""
        panel.set_title(f"stage{plural} {', '.join(numbers[graph])}")
        panel.axis("off")
        _panel(panel, graph, places[graph])
        panel.set_ylim(0.5 - height, 0.5)
    figure.text(0.5, 0.05, LEGEND, ha="center", va="top", fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _places(graph):
    """Returns (x, y) of each node: a row for OR nodes, one for the others, by width."""
    rows = {}
    for node in graph.nodes:
        depth = 2 * (graph.root.width - node.width) + (node.kind != OR)
        rows.setdefault(depth, []).append(node)
    longest = max(map(len, rows.values()))
    places = {}
    for depth, nodes in rows.items():
        nodes.sort(key=lambda node: (node.first + node.last, node.split or 0))
        for i, node in enumerate(nodes):
            places[node] = ((i + 0.5) * longest / len(nodes) - 0.5, -depth)
    return places


def _panel(panel, graph, places):
    for node, (x, y) in places.items():
        full = node.width == graph.root.width
        panel.text(
            x,
            y,
            f"{node.number}: {node.first}"
            + (f"-{node.last}" if node.width > 1 else ""),
            ha="center",
            va="center",
            fontsize=7,
            bbox={
                "boxstyle": SHAPES[node.kind],
                "facecolor": COLORS[node.kind],
                "linewidth": 2 if full else 0.8,
            },
        )
        for child in graph.children(node):
            _arrow(panel, places[child], (x, y), "0.5", curve=0)
        for child in graph.laterals(node):
            _arrow(panel, places[child], (x, y), LATERAL, curve=0.3)
    panel.set_xlim(-0.5, max(x for x, _ in places.values()) + 0.5)


def _arrow(panel, start, end, color, curve):
    panel.annotate(
        "",
        end,
        start,
        zorder=0,
        arrowprops={
            "arrowstyle": "-|>",
            "color": color,
            "shrinkA": 11,
            "shrinkB": 11,
            "connectionstyle": f"arc3,rad={curve}",
        },
    )
