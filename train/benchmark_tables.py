"""How `train.benchmark` shows its rows: tables in the terminal, and a picture."""

import pathlib
import statistics

from train import tables

WIDTH = 120  # characters, where the terminal does not say


def show(rows: list[dict]) -> None:
    """A table for each phase: variants by cases, ratios to the reference."""
    for phase in dict.fromkeys(row["phase"] for row in rows):
        here = [row for row in rows if row["phase"] == phase]
        cases = list(dict.fromkeys(row["case"] for row in here))
        reference, unit = here[0]["reference"], here[0]["unit"]
        title = (
            f"{phase}, {unit} of {reference} = 1" if reference else f"{phase}, {unit}"
        )
        mean_of = ["geometric mean"] if reference else []
        columns, lines = ["variant", *cases, *mean_of], []
        for variant in dict.fromkeys(row["variant"] for row in here):
            mine = {row["case"]: row for row in here if row["variant"] == variant}
            cells = [_ratio(mine[case]) for case in cases]
            if reference:
                ratios = [max(mine[case]["ratio"], 1e-9) for case in cases]
                cells.append(f"{statistics.geometric_mean(ratios):.2f}")
            lines.append((variant, *cells))
        tables.show(columns, lines, title, WIDTH)


def show_cases(rows: list[dict]) -> None:
    """A table for each phase: cases by variants, and ratios to the reference."""
    for phase in dict.fromkeys(row["phase"] for row in rows):
        here = [row for row in rows if row["phase"] == phase]
        variants = list(dict.fromkeys(row["variant"] for row in here))
        reference = next((row["reference"] for row in here if row["reference"]), None)
        compared = {row["variant"] for row in here if row["reference"]}
        ratios = [v for v in variants if v in compared and v != reference]
        columns = [
            "case",
            *(variant or "value" for variant in variants),
            *(f"{variant} / {reference}" for variant in ratios),
        ]
        lines = []
        for case in dict.fromkeys(row["case"] for row in here):
            mine = {row["variant"]: row for row in here if row["case"] == case}
            cells = [f"{mine[v]['value']:.4g}" if v in mine else "" for v in variants]
            for row in (mine.get(variant) for variant in ratios):
                cells.append(_ratio(row) if row and row["reference"] else "")
            lines.append((case, *cells))
        tables.show(columns, lines, f"{phase}, {here[0]['unit']}", WIDTH)


def _ratio(row):
    return f"{row['ratio']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})"


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """Bars of what `show` prints: variants by cases, with their ranges."""
    import matplotlib.pyplot as plt

    phases = list(dict.fromkeys(row["phase"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure, axes = plt.subplots(
        1,
        len(phases),
        figsize=(6 * len(phases), 4),
        squeeze=False,
        layout="constrained",
    )
    for axis, phase in zip(axes[0], phases, strict=True):
        here = [row for row in rows if row["phase"] == phase]
        cases = list(dict.fromkeys(row["case"] for row in here))
        for i, variant in enumerate(variants):
            mine = [row for row in here if row["variant"] == variant]
            ratios = [row["ratio"] for row in mine]
            below = [row["ratio"] - row["ratio_min"] for row in mine]
            above = [row["ratio_max"] - row["ratio"] for row in mine]
            width = 0.8 / len(variants)
            places = [cases.index(row["case"]) + i * width for row in mine]
            axis.bar(places, ratios, width, yerr=(below, above), label=str(i))
        middle = 0.4 - width / 2
        ticks = [position + middle for position in range(len(cases))]
        names = [tables.printable(case).replace(", ", "\n") for case in cases]
        axis.set_xticks(ticks, names, fontsize=8, parse_math=False)
        reference, unit = here[0]["reference"], here[0]["unit"]
        axis.set_ylabel(f"{unit}, {reference} = 1" if reference else unit)
        axis.set_title(phase)
    legend = axes[0][0].legend(fontsize=8)
    for text, variant in zip(legend.get_texts(), variants, strict=True):
        # matplotlib leaves out labels that begin with "_", and reads "$" as mathematics
        text.set(text=tables.printable(variant), parse_math=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
