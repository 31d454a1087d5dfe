"""Plots of groups of runs, as SVG."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.engine import confusion_plot
from train.study.analysis import Analysis, Gate
from train.study.groups import Group, interval

WIDTH, NARROW, HEIGHT = 9.0, 5.0, 3.4  # inches
MOST_LAYERS = 6  # whose attention is plotted
LABEL = 40  # characters
PAIRS = matplotlib.color_sequences["tab20"]
COLORS = (*PAIRS[::2], *PAIRS[1::2])


def svg(figure: Figure) -> bytes:
    """Returns a figure as SVG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "an-keras"}):
        figure.savefig(
            buffer, format="svg", bbox_inches="tight", metadata={"Date": None}
        )
    return buffer.getvalue()


def _figure(columns, height=HEIGHT, width=WIDTH):
    figure = Figure((width, height), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(1, columns))


def _label(text):
    """Returns a short text of characters that every font has."""
    ascii_only = text.encode("ascii", "backslashreplace").decode()
    if len(ascii_only) <= LABEL:
        return ascii_only
    half = LABEL // 2
    return f"{ascii_only[: half - 1]}...{ascii_only[-half:]}"  # both ends matter


def _legend(figure, axis):
    """Places the legend above the plot, where it hides nothing."""
    handles, labels = axis.get_legend_handles_labels()
    columns = min(len(labels), 3)
    legend = figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def curves(groups: Sequence[Group]) -> tuple[Figure, Figure]:
    """Validation accuracy, and losses, by epoch: means over seeds and their ranges."""
    (one, (accuracy,)), (other, (loss,)) = (_figure(1, width=NARROW) for _ in range(2))
    for group, color in zip(groups, _colors(groups), strict=True):
        for axis, split, column, style in (
            (accuracy, "validation", 2, "-"),
            (loss, "validation", 1, "-"),
            (loss, "train", 1, ":"),
        ):
            points = [run.curves[split] for run in group.runs]
            length = min(map(len, points))
            if not length:
                continue
            epochs = points[0][:length, 0]
            values = np.stack([each[:length, column] for each in points])
            label = _label(group.label) if axis is accuracy else None
            axis.plot(epochs, values.mean(axis=0), style, color=color, label=label)
            if len(points) > 1:
                low, high = values.min(axis=0), values.max(axis=0)
                axis.fill_between(epochs, low, high, color=color, alpha=0.2, lw=0)
    accuracy.set(xlabel="epoch", ylabel="validation top-1")
    loss.set(xlabel="epoch", ylabel="loss (dotted: training)")
    _legend(one, accuracy)
    return one, other


def robustness(groups: Sequence[Group], analyses: dict) -> Figure:
    """Accuracy by corruption, the mean over severities; bars are 95 % intervals."""
    names = list(dict.fromkeys(name for name, _ in _first(groups, analyses).corrupted))
    figure, (axis,) = _figure(1, height=0.25 * len(names) * len(groups) + 1)
    size = 0.8 / len(groups)
    for number, (group, color) in enumerate(zip(groups, _colors(groups), strict=True)):
        means, errors = [], []
        for name in names:
            of_runs = [by_name(analyses[run])[name] for run in group.runs]
            mean, half = interval(np.array(of_runs))
            means.append(mean)
            errors.append(half or 0.0)
        places = np.arange(len(names)) + (number - (len(groups) - 1) / 2) * size
        label = _label(group.label)
        axis.barh(places, means, size, xerr=errors, color=color, label=label)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.invert_yaxis()
    axis.set(xlabel="top-1", xlim=(0, 1))
    _legend(figure, axis)
    return figure


def by_name(analysis: Analysis) -> dict[str, float]:
    """Returns the mean accuracy over the severities of each corruption."""
    values = {}
    for (name, _), accuracy in analysis.corrupted.items():
        values.setdefault(name, []).append(accuracy)
    return {name: float(np.mean(each)) for name, each in values.items()}


def confusion(group: Group, analyses: dict, names: tuple[str, ...]) -> Figure:
    """The confusion matrix, summed over seeds."""
    return confusion_plot.figure(
        sum(analyses[run].confusion for run in group.runs), names
    )


def attention(gates: Sequence[Gate], names: tuple[str, ...]) -> Figure:
    """Mean attention by class and component in some layers."""
    places = np.linspace(0, len(gates) - 1, min(len(gates), MOST_LAYERS))
    chosen = [gates[round(place)] for place in places]
    classes = len(names)
    figure, axes = _figure(len(chosen), height=min(0.22 * classes, 8) + 1.5)
    for axis, gate in zip(axes, chosen, strict=True):
        image = axis.imshow(gate.by_class, aspect="auto", cmap="viridis", vmin=0)
        axis.set_title(_label(gate.layer), fontsize=6, parse_math=False)
        axis.set_xlabel("component", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
        figure.colorbar(image, ax=axis, location="bottom").ax.tick_params(labelsize=6)
    if classes <= 40:
        labels = confusion_plot.class_labels(names, 16)
        axes[0].set_yticks(range(classes), labels, parse_math=False)
    axes[0].set_ylabel("class", fontsize=8)
    return figure


def components(groups: Sequence[Group], analyses: dict) -> Figure:
    """Effective numbers of components by layer, as shares of K: means over seeds."""
    figure, (axis,) = _figure(1)
    for group, color in zip(groups, _colors(groups), strict=True):
        gates = [analyses[run].gates for run in group.runs]
        if not gates[0]:
            continue
        counts = np.array([gate.by_class.shape[1] for gate in gates[0]])
        for name, style in (("effective", "-"), ("effective_of_mean", ":")):
            values = np.array([[getattr(g, name) for g in each] for each in gates])
            label = _label(group.label) if style == "-" else None
            numbers = np.arange(1, len(counts) + 1)
            axis.plot(
                numbers,
                values.mean(axis=0) / counts,
                f"o{style}",
                ms=3,
                color=color,
                label=label,
            )
    axis.set(xlabel="layer", ylabel="effective components / K")
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _legend(figure, axis)
    return figure


def _first(groups, analyses):
    return analyses[groups[0].runs[0]]


def _colors(groups):
    return [COLORS[number % len(COLORS)] for number, _ in enumerate(groups)]
