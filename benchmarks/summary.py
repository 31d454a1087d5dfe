"""Medians and ratios of the rows of processes, as tables and a plot."""

import pathlib
import statistics

from train import tables

# The variant that all others are compared with, by kind of benchmark.
REFERENCE = {
    "layer": "Keras BN",
    "network": "BN",
    "passes": "AN",
    "size": "AN plain",
    "memory": "BN",
    "input": "JPEG decode",
    "scaling": None,
    "startup": None,
    "serve": "BN",
}
WIDTH = 120  # characters, where the terminal does not report its width


def summarize(kind: str, runs: list[list[dict]]) -> list[dict]:
    """Returns medians and ranges over processes by case, phase and variant."""
    values, ratios, units, compared = {}, {}, {}, set()
    for rows in runs:
        reference = {
            (row["case"], row["phase"]): row["value"]
            for row in rows
            if row["variant"] == REFERENCE[kind]
        }
        compared |= set(reference)
        for row in rows:
            key = row["case"], row["phase"], row["variant"]
            units[key] = row["unit"]
            values.setdefault(key, []).append(row["value"])
            ratio = row["value"] / reference.get(key[:2], 1.0)
            ratios.setdefault(key, []).append(ratio)
    return [
        {
            "kind": kind,
            "case": case,
            "phase": phase,
            "variant": variant,
            "unit": units[key],
            "value": statistics.median(values[key]),
            "reference": REFERENCE[kind] if key[:2] in compared else "",
            "ratio": statistics.median(ratios[key]),
            "ratio_min": min(ratios[key]),
            "ratio_max": max(ratios[key]),
        }
        for key in values
        for case, phase, variant in [key]
    ]


def show(rows: list[dict]) -> None:
    """Prints a table per phase: variants by cases, ratios to the reference."""
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
    """Prints a table per phase: cases by variants, and ratios to the reference."""
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
    """Plots what `show` prints as bars: variants by cases, with their ranges."""
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
        # matplotlib skips labels that start with "_" and reads "$" as mathematics
        text.set(text=tables.printable(variant), parse_math=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def overheads(rows: list[dict]) -> list[dict]:
    """Medians of AN against BN in the form that `plot` takes.

    One panel per batch size, a group of bars per network, a bar per runtime.
    """
    plotted = []
    for row in rows:
        if row["phase"] == "p50" and row["variant"] == "AN" and row["reference"]:
            network, runtime, batch = row["case"].split(", ")
            plotted.append({**row, "case": network, "variant": runtime, "phase": batch})
    return plotted
