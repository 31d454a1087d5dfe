"""Plots a confusion matrix."""

import pathlib

import numpy as np
from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure

from train import files, tables

MOST = 100  # classes; with more, names and numbers become unreadable
CELL, SIDE = 0.25, 4.0  # inches: of a cell, and of a small matrix
NAME = 40  # characters of a name
DOTS = 120  # per inch


def write(counts: np.ndarray, names: tuple[str, ...], path: pathlib.Path) -> None:
    """Writes the figure as a PNG file."""
    with files.replaced(path.resolve(), "wb") as file:
        figure(counts, names).savefig(file, format="png", dpi=DOTS, bbox_inches="tight")


def figure(counts: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Plots a confusion matrix, coloured by shares of the true class.

    Of more than 100 classes it shows those with the most mistakes. Names that the fonts
    of matplotlib (`font.family`) lack characters for are replaced by `#NUMBER`.

    Args:
        counts: Numbers of images by true and predicted class, (classes, classes).
        names: One name for each class.
    """
    mistakes = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MOST])
    labels = class_labels(names, NAME)
    labels = [labels[number] for number in shown]
    lacking = any(label == f"#{n}" for label, n in zip(labels, shown, strict=True))
    note = " (#: number of a class whose name the font cannot show)"
    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    shares = (counts / totals)[np.ix_(shown, shown)]

    side = max(CELL * len(shown), SIDE)
    plot = Figure((side, side))
    axis = plot.add_axes((0, 0, 1, 1))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(shares), strict=True):
        color = "white" if shares[row, column] > 0.5 else "black"
        count = str(counts[shown[row], shown[column]])
        axis.text(column, row, count, color=color, ha="center", va="center", fontsize=7)
    ticks = range(len(shown))
    axis.set_xticks(ticks, labels, rotation=90, fontsize=8, parse_math=False)
    axis.set_yticks(ticks, labels, fontsize=8, parse_math=False)
    axis.set_xlabel(f"predicted class{note if lacking else ''}")
    axis.set_ylabel("true class")
    if len(shown) < len(names):
        axis.set_title(f"{MOST} of {len(names)} classes, those with the most mistakes")
    return plot


def class_labels(names: tuple[str, ...], width: int) -> list[str]:
    """Returns shortened names, or `#NUMBER` where the fonts lack a character."""
    drawable = _drawable()
    return [
        tables.shortened(name, width)
        if drawable.issuperset(map(ord, name))
        else f"#{number}"
        for number, name in enumerate(names)
    ]


def _drawable():
    """Returns the code points that the fonts of matplotlib have."""
    characters = set()
    for family in rcParams["font.family"]:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]))
        characters |= font_manager.get_font(path).get_charmap().keys()
    return characters
