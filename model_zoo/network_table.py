"""The table of all networks: sizes, the cost of AN, published and own results."""

import csv
import itertools
import math
import os
from collections.abc import Iterable, Iterator

import keras

from an_keras import AttentiveNormalization
from model_zoo import published
from model_zoo.flops import multiply_adds
from model_zoo.registry import list_models, model_info
from model_zoo.weight_sets import tags

NOT_MEASURED = "not measured"


def rows(pattern: str = "*") -> Iterator[dict]:
    """Builds every network that matches and yields its row.

    Multiply-adds are for one image of the default size, in millions; shares of AN are
    what it adds to plain norms, in percent of the whole network. Published accuracies
    are top-1 and top-5 on ImageNet, published AP are those of Mask R-CNN on COCO
    val2017, in percent: plain heads, and heads with AN over group normalization.
    """
    for name in list_models(pattern):
        info = model_info(name)
        model = info.build(weights=None, input_shape=info.input_shape)
        work = multiply_adds(model)
        parameters = _count(model.trainable_variables)
        yield {
            "network": name,
            "lineage": info.lineage,
            "input": info.input_shape[0],
            "parameters": parameters,
            "an_parameters_percent": _percent(_added(model), parameters),
            "million_multiply_adds": round(work.network / 1e6, 2),
            "published_million_multiply_adds": published.multiply_adds(name),
            "million_multiply_adds_of_norms": round(work.norms / 1e6, 2),
            "an_multiply_adds_percent": _percent(
                work.attention, work.network + work.norms
            ),
            "published_top1": info.top1,
            "published_top5": info.top5,
            "paper_top1": info.paper_top1,
            "paper_top5": info.paper_top5,
            **_named(published.LONGER_COLUMNS, published.LONGER.get(name, ())),
            **_named(published.COCO_COLUMNS, published.COCO.get(name, ())),
            "our_imagenet_top1": NOT_MEASURED,
            "our_weights": " ".join(tags(name)),
        }
        keras.utils.clear_session(free_memory=True)


def write_csv(table: Iterable[dict], path: str | os.PathLike) -> None:
    """Writes the rows to a CSV file."""
    table = list(table)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


def markdown(table: Iterable[dict]) -> Iterator[str]:
    """Yields the lines of a Markdown table with the most important columns."""
    columns = (
        "network",
        "parameters",
        "from AN",
        "multiply-adds (published)",
        "from AN",
        "published top-1 / top-5",
        "box / mask AP",
        "ours",
    )
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in table:
        counted = f"{row['million_multiply_adds']:,.0f} M"
        if row["published_million_multiply_adds"]:
            counted += f" ({row['published_million_multiply_adds']:,.0f} M)"
        cells = (
            f"`{row['network']}`",
            f"{row['parameters']:,}",
            f"{row['an_parameters_percent']} %" if row["an_parameters_percent"] else "",
            counted,
            f"{row['an_multiply_adds_percent']} %"
            if row["an_multiply_adds_percent"]
            else "",
            _pair(row["published_top1"], row["published_top5"]),
            _pair(row["coco_box_ap"], row["coco_mask_ap"]),
            row["our_imagenet_top1"],
        )
        yield f"| {' | '.join(cells)} |"


def _named(columns, values):
    return dict(itertools.zip_longest(columns, values))


def _pair(first, second):
    return "" if first is None else f"{first} / {second}"


def _count(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def _added(model):
    """Returns the parameters of AN beyond those of a norm with scale and shift."""
    norms = (
        layer for layer in model.layers if isinstance(layer, AttentiveNormalization)
    )
    return sum(
        _count(norm.trainable_variables) - 2 * norm.gamma.shape[1] for norm in norms
    )


def _percent(part, whole):
    return float(f"{100 * part / whole:.2g}")
