"""How `train.benchmark` shows its rows: tables in the terminal, and a picture."""

import pathlib
import statistics
import sys

import rich.console
import rich.table


def show(rows: list[dict]) -> None:
    """A table for each phase: variants by cases, ratios to the reference."""
    console = rich.console.Console(width=None if sys.stdout.isatty() else 120)
    for phase in dict.fromkeys(row["phase"] for row in rows):
        here = [row for row in rows if row["phase"] == phase]
        cases = list(dict.fromkeys(row["case"] for row in here))
        reference, unit = here[0]["reference"], here[0]["unit"]
        title = (
            f"{phase}, {unit} of {reference} = 1" if reference else f"{phase}, {unit}"
        )
        mean_of = ["geometric mean"] if reference else []
        table = rich.table.Table("variant", *cases, *mean_of, title=title)
        for variant in dict.fromkeys(row["variant"] for row in here):
            mine = {row["case"]: row for row in here if row["variant"] == variant}
            cells = [_ratio(mine[case]) for case in cases]
            if reference:
                ratios = [max(mine[case]["ratio"], 1e-9) for case in cases]
                cells.append(f"{statistics.geometric_mean(ratios):.2f}")
            table.add_row(variant, *cells)
        console.print(table)


def show_cases(rows: list[dict]) -> None:
    """A table for each phase: cases by variants, and ratios to the reference."""
    console = rich.console.Console(width=None if sys.stdout.isatty() else 120)
    for phase in dict.fromkeys(row["phase"] for row in rows):
        here = [row for row in rows if row["phase"] == phase]
        variants = list(dict.fromkeys(row["variant"] for row in here))
        reference = next((row["reference"] for row in here if row["reference"]), None)
        compared = {row["variant"] for row in here if row["reference"]}
        ratios = [v for v in variants if v in compared and v != reference]
        table = rich.table.Table(
            "case",
            *(variant or "value" for variant in variants),
            *(f"{variant} / {reference}" for variant in ratios),
            title=f"{phase}, {here[0]['unit']}",
        )
        for case in dict.fromkeys(row["case"] for row in here):
            mine = {row["variant"]: row for row in here if row["case"] == case}
            cells = [f"{mine[v]['value']:.4g}" if v in mine else "" for v in variants]
            for row in (mine.get(variant) for variant in ratios):
                cells.append(_ratio(row) if row and row["reference"] else "")
            table.add_row(case, *cells)
        console.print(table)


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
            axis.bar(places, ratios, width, yerr=(below, above), label=variant)
        middle = 0.4 - width / 2
        ticks = [position + middle for position in range(len(cases))]
        axis.set_xticks(ticks, [case.replace(", ", "\n") for case in cases], fontsize=8)
        reference, unit = here[0]["reference"], here[0]["unit"]
        axis.set_ylabel(f"{unit}, {reference} = 1" if reference else unit)
        axis.set_title(phase)
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
