"""python -m train.report: compares finished runs.

    python -m train.report runs/digits runs/digits_bn --svm
    python -m train.report runs/sweep --html=report.html --corruption=all --images=200

Prints a table of runs and, if some differ in their seeds only, of their means. A sweep
stands for its finished runs.

`--html` also evaluates the best weights, and writes a page that needs no other file:
curves, means and paired differences with 95 % intervals, confusions, robustness to
corruptions (`--corruption`), and what the gates of attentive normalization do.

`--svm` adds a support vector machine on the pixels of the first run's training images
(scikit-learn's, RBF kernel), as a baseline for small images.
"""

import itertools
import os
import pathlib
import shlex

import tqdm
from absl import flags

from train import cli, files, paths, tables
from train.export import runtimes, saved_model
from train.input import corruptions
from train.study import groups as study
from train.study import runs_table

NEEDED = (  # flags, each with the one that it needs
    ("corruption", "html"),
    *((name, "corruption") for name in ("severity", "images")),
)


def define_flags():
    flags.DEFINE_bool("svm", False, "Adds a support vector machine to the table.")
    paths.DEFINE_path("csv", "Also writes the runs to this CSV file.", paths.output)
    paths.DEFINE_path("html", "Also writes a page to this file.", paths.output)
    flags.DEFINE_multi_enum(
        "corruption", [], ("all", *corruptions.NAMES), "Corruptions, for --html."
    )
    flags.DEFINE_multi_integer(
        "severity", [*corruptions.SEVERITIES], "Severities of --corruption.", 1, 5
    )
    flags.DEFINE_integer(
        "images", None, "Most images for a corruption, evenly spaced.", 1, 2**40
    )
    paths.DEFINE_data_place()


def main(arguments):
    values = flags.FLAGS
    if not arguments:
        raise cli.UsageError("Expected at least one run. Received: none.")
    cli.require_together(NEEDED)
    places = [pathlib.Path(paths.expand(argument, "RUN")) for argument in arguments]
    directories, unfinished = study.find(places)
    runs = study.read(directories)
    study.require_equal_data(runs)
    for run in runs:
        version = run.directory / "export" / str(run.results["step"])
        if version.exists():
            saved_model.require_results(version, run.results)
    rows = [runs_table.row(run.directory, run.results) for run in runs]
    if values.svm:
        rows.append(runs_table.svm_row(directories[0], values.data_dir, values.data))
    tables.show(runs_table.COLUMNS, rows)
    groups = study.group(runs) if len(runs) > 1 else []
    if not all(map(study.is_distinct, groups)):
        print("no means: some runs have equal recipes and seeds")
    elif any(len(group.runs) > 1 for group in groups):
        tables.show(study.COLUMNS, [*map(study.row, groups)])
    for name in unfinished:
        print(tables.printable(f"left out, not finished: {name}"))
    if values.csv:
        named = [
            {"run": "", "seed": "", **run.results}
            | {"run": str(run.directory), "seed": run.seed}
            for run in runs
        ]
        tables.write_csv(pathlib.Path(values.csv), named)
    if values.html:
        _write_page(pathlib.Path(values.html), runs, unfinished)
    _print_places(directories)


def _write_page(path, runs, unfinished):
    from train.study import analysis, page

    values, groups = flags.FLAGS, study.group(runs)
    study.require_distinct(groups)
    for run in runs:
        _ = run.curves  # damaged ones are reported before the work
    names = corruptions.NAMES if "all" in values.corruption else values.corruption
    severities = sorted({*values.severity})
    corrupted = [*itertools.product(dict.fromkeys(names), severities)]
    data = runs[0].spec.load_data(values.data_dir, values.data)
    analyses = {}
    for number, run in enumerate(runs, 1):
        name = tables.printable(str(run.directory))
        print(f"evaluating {number}/{len(runs)}  {name}", flush=True)
        shown = tqdm.tqdm(corrupted, unit="corruption", leave=False, disable=None)
        analyses[run] = analysis.analyse(run, data, shown, values.images)
    text = page.page(groups, analyses, unfinished)
    with files.replaced(path.resolve(), encoding="utf-8") as file:
        file.write(text)
    print(tables.printable(f"page in {path}"))


def _print_places(directories):
    exported = ((run, runtimes.exports(run)) for run in directories)
    lines = [f"SavedModel of {run}: {each[-1]}" for run, each in exported if each]
    parents = os.path.commonpath([run.resolve().parent for run in directories])
    for line in (*lines, f"curves: tensorboard --logdir {shlex.quote(parents)}"):
        print(tables.printable(line))


if __name__ == "__main__":
    cli.run(main, define_flags)
