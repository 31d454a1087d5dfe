"""A page about groups of runs: one HTML file that needs no other."""

import base64
import html
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from train import fields
from train.study import plots
from train.study.groups import Group, differences, interval, shown_interval

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal;
         overflow-wrap: anywhere; min-width: 8rem; }
img { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
.row > * { flex: 1 1 22rem; min-width: 0; margin: 0; }
details { margin: 1rem 0; } pre { overflow-x: auto; font-size: 0.8rem; }
p.note { color: #555; font-size: 0.9rem; }
"""
MOST_PAIRS = 15
SAME = ", which are the test images: the accuracies are optimistic"


def page(groups: Sequence[Group], analyses: dict, unfinished: Sequence[str]) -> str:
    """Returns the page.

    Args:
        groups: The groups of runs.
        analyses: An `Analysis` for each run.
        unfinished: Names of runs that are left out.
    """
    first = groups[0].runs[0]
    names = first.spec.class_names
    runs = [run for group in groups for run in group.runs]
    parts = [
        _heading(first, runs, unfinished),
        "<h2>Accuracy on the test images</h2>",
        _table(*_results(groups, analyses)),
        _note(
            "Means over seeds ± half of the 95 % confidence interval (Student's t); "
            "one seed has none. Weights are those that are best on the validation "
            f"images{SAME if first.results.get('are_validation_images') else ''}."
        ),
        *_pairs(groups),
        "<h2>Curves</h2>",
        _row(_image(plot, "Curves by epoch") for plot in plots.curves(groups)),
        _note(
            "Lines are means over seeds, areas reach from the lowest to the highest."
        ),
        *_robustness(groups, analyses),
        "<h2>Confusions on the test images</h2>",
        _row(_confusion(group, analyses, names) for group in groups),
        _note("Numbers of images, summed over seeds."),
        *_attention(groups, analyses, names),
        *_runs(runs),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(first.spec.recipe.data.name)}</title>"
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _heading(first, runs, unfinished):
    images = ", ".join(f"{count:,} {name}" for name, count in first.spec.images.items())
    left_out = ""
    if unfinished:
        left_out = _note(f"Left out, not finished: {', '.join(unfinished)}.")
    counted = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return (
        f"<h1>{counted} on {_text(first.spec.recipe.data.name)}</h1>"
        f"<p>{len(first.spec.class_names)} classes; images: {_text(images)}.</p>"
        f"{left_out}"
    )


def _confusion(group, analyses, names):
    image = _image(plots.confusion(group, analyses, names), "Confusion matrix")
    return f"<div><h3>{_text(group.label)}</h3>{image}</div>"


def _runs(runs):
    header = ("run", "seed", "top-1", "best step", "sha256 of the weights")
    rows = []
    for run in runs:
        top1, sha256 = f"{run.results['top1']:.4f}", run.results["sha256"][:12]
        step = str(run.results["step"])
        rows.append((str(run.directory), str(run.seed), top1, step, sha256))
    first = runs[0]
    recipe = "\n".join(fields.values(first.spec.recipe))
    return [
        "<h2>Runs</h2>",
        _table(header, rows),
        f"<details><summary>Recipe of {_text(first.directory)}</summary>"
        f"<pre>{_text(recipe)}</pre></details>",
    ]


def _results(groups, analyses):
    header = ("", "seeds", "parameters", "top-1", "loss", "calibration error")
    rows = []
    for group in groups:
        errors = np.array([analyses[run].calibration_error for run in group.runs])
        rows.append(
            (
                group.label,
                str(len(group.runs)),
                f"{group.runs[0].results['parameters']:,}",
                shown_interval(group.values("top1")),
                shown_interval(group.values("loss")),
                shown_interval(errors),
            )
        )
    return header, rows


def _pairs(groups):
    rows, pairs = [], [*itertools.combinations(groups, 2)]
    for one, other in pairs[:MOST_PAIRS]:
        values = differences(one, other)
        if not len(values):
            continue
        mean, half = interval(values * 100)
        between = (
            f"{mean - half:+.2f} to {mean + half:+.2f}" if half is not None else ""
        )
        names = f"{one.label} − {other.label}"
        rows.append((names, str(len(values)), f"{mean:+.2f}", between))
    if not rows:
        return []
    more = len(pairs) - MOST_PAIRS
    header = ("", "seeds in both", "points of top-1", "95 % interval")
    return [
        "<h2>Paired differences</h2>",
        _table(header, rows),
        *([_note(f"{more} more pairs are not shown.")] if more > 0 else []),
        _note(
            "Differences of runs with the same seed, in percentage points. An interval "
            "that contains 0 does not show a difference; of many intervals, one in "
            "twenty misses the truth."
        ),
    ]


def _robustness(groups, analyses):
    measured = analyses[groups[0].runs[0]].corrupted
    if not measured:
        return [
            "<h2>Robustness</h2>",
            _note("Not measured; report with --corruption=all."),
        ]
    header, rows = ("", "mean top-1", "of corruptions"), []
    for group in groups:
        means = [np.mean([*analyses[run].corrupted.values()]) for run in group.runs]
        rows.append((group.label, shown_interval(np.array(means)), str(len(measured))))
    severities = sorted({severity for _, severity in measured})
    return [
        "<h2>Robustness</h2>",
        _table(header, rows),
        _image(plots.robustness(groups, analyses), "Accuracy by corruption"),
        _note(f"Means over severities {', '.join(map(str, severities))}."),
    ]


def _attention(groups, analyses, names):
    attentive = [group for group in groups if analyses[group.runs[0]].gates]
    if not attentive:
        return []
    parts = [
        "<h2>Attention</h2>",
        _image(plots.components(attentive, analyses), "Effective components by layer"),
        _note(
            "The effective number of components is exp(entropy) of the attention, "
            "normalized to a sum of 1: its mean over images, and (dotted) that of the "
            "mean attention. The farther these are apart, the more do images differ in "
            "the components that they use."
        ),
    ]
    for group in attentive:
        run = group.runs[0]
        header = ("layer", "K", "entropy", "effective", "of the mean")
        rows = [
            (
                gate.layer,
                str(gate.by_class.shape[1]),
                f"{gate.entropy:.2f}",
                f"{gate.effective:.1f}",
                f"{gate.effective_of_mean:.1f}",
            )
            for gate in analyses[run].gates
        ]
        parts += [
            f"<h3>{_text(group.label)}, seed {run.seed}</h3>",
            _image(plots.attention(analyses[run].gates, names), "Attention by class"),
            _note("Mean attention to validation images, by class and component."),
            _table(header, rows),
        ]
    return parts


def _text(value):
    return html.escape(str(value))


def _note(text):
    return f'<p class="note">{_text(text)}</p>'


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _row(parts):
    return f'<div class="row">{"".join(parts)}</div>'


def _image(figure, alternative):
    data = base64.b64encode(plots.svg(figure)).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<p><img alt="{_text(alternative)}" src="{source}"></p>'
