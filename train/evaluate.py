"""python -m train.evaluate: what a network gets right and wrong, on any images.

    python -m train.evaluate --workdir=runs/digits --split=validation --out=DIR
    python -m train.evaluate --workdir=RUN --on=imagenet_v2/matched-frequency
    python -m train.evaluate --workdir=RUN --corruption=all --csv=FILE
    python -m train.evaluate --model=resnet20_an --weights=fashion_mnist --on=DATA
    python -m train.evaluate --saved_model=DIR --on=DATA

Evaluates the best weights of a run, a network of the zoo or an export. Without `--on`,
the images are those of the run; training reads its test images once, at its end, and
this command reads them again.

Prints loss, accuracies and expected calibration error, the accuracy of each class, the
confusion matrix (of many classes, the most frequent confusions) and misclassified
images. With `--out`, also writes `classes.csv`, `confusion.csv`, `confusion.png` and
`wrong.csv`, with everything. `--csv` adds a line for each evaluation to a file.

`--on`, `--corruption` and `--severity` can be repeated; each combination is evaluated.
In bash, `--on=imagenet2012_corrupted/{fog,snow}_{1,2,3,4,5}` are ten data sets.
"""

import functools
import itertools
import pathlib

import numpy as np
import tqdm
from absl import flags

from train import cli, config, paths, tables
from train.cli import RunError, UsageError
from train.engine import evaluation, mistakes, run_directory
from train.export import image_classifier, network_flags
from train.export.exported import ExportedClassifier
from train.input import augment, corruptions, evaluation_sets

SPLITS = ("train", "validation", "test")  # of a run
SOURCES = ("workdir", "model", "saved_model")
NEEDED = (  # flags, each with the one that it needs
    *((name, "model") for name in ("weights", "options", "labels")),
    *((name, "on") for name in ("label_map", "classes")),
    *((name, "corruption") for name in ("severity", "seed")),
    ("data", "workdir"),
)
COLUMNS = (
    *("source", "model", "version", "data", "split"),
    *("corruption", "severity", "seed", "images", "left_out", "classes"),
    *("loss", "top1", "top5", "ece"),
)


def define_flags():
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal)
    network_flags.DEFINE_network()
    paths.DEFINE_path(
        "saved_model", "An export, or the directory of exports.", paths.literal
    )
    flags.DEFINE_multi_string("on", [], f"Data set: {config.DATA_SETS}.")
    flags.DEFINE_string(
        "split",
        None,
        "Split to evaluate on. Default: test, or else validation, or else the only one",
    )
    paths.DEFINE_path(
        "label_map", "JSON file: {class of --on: class of the network}; others are out."
    )
    flags.DEFINE_enum(
        "classes",
        None,
        evaluation.KINDS,
        "Classes to choose from: all of the network, those that the data set names, or "
        "those that it has images of. Default: named; present for "
        f"{' and '.join(evaluation_sets.SUBSETS)}",
    )
    flags.DEFINE_multi_enum(
        "corruption", [], ("all", *corruptions.NAMES), "Corruption of the images."
    )
    flags.DEFINE_multi_integer(
        "severity", [*corruptions.SEVERITIES], "Severities of --corruption.", 1, 5
    )
    flags.DEFINE_integer("seed", 0, "Seed of --corruption.", 0, 2**31 - 1)
    flags.DEFINE_integer(
        "images", None, "Most images, evenly spaced; default: all.", 1, 2**40
    )
    paths.DEFINE_path("out", "Directory for tables and a plot of all answers.")
    paths.DEFINE_path("csv", "Adds lines to this file.", paths.output)
    paths.DEFINE_data_place()
    flags.DEFINE_integer("batch_size", 256, "Images per step.", 1, 2**24)


def main(arguments):
    cli.no_arguments(arguments)
    values = flags.FLAGS
    names = corruptions.NAMES if "all" in values.corruption else values.corruption
    severities = sorted({*values.severity})
    corrupted = [*itertools.product(dict.fromkeys(names), severities)] or [None]
    _check_flags(values, len({*values.on} or [""]) * len(corrupted))
    if values.csv:
        tables.require_columns(pathlib.Path(values.csv), COLUMNS)
    mapping = values.label_map and evaluation_sets.read_map(values.label_map)
    classifier, source = _classifier(values)
    out = values.out and pathlib.Path(values.out)
    if out:
        out.mkdir(parents=True, exist_ok=True)
    accuracies = []
    sets = [
        (
            images.thinned(values.images),
            evaluation.choices(images, classifier.class_names, mapping, values.classes),
        )
        for images in _image_sets(values, classifier.class_names)
    ]
    for images, choices in sets:
        for corruption in corrupted:
            done = _evaluated(classifier, images, choices, corruption)
            name, severity = corruption or ("", "")
            row = {
                **source,
                **{"data": images.name, "split": images.split},
                **{"corruption": name, "severity": severity},
                "seed": values.seed if corruption else "",
                **{"images": len(done.losses), "classes": done.classes},
                "left_out": images.count - len(done.losses),
                **done.metrics,
            }
            print(_line(row, done.metrics, len(classifier.class_names)), flush=True)
            if values.csv:
                tables.append_csv(pathlib.Path(values.csv), row, COLUMNS)
            accuracies.append(row["top1"])
    if len(accuracies) > 1:
        print(f"mean of {len(accuracies)}  top1 {np.mean(accuracies):.4f}")
        return
    print(*mistakes.summary(done.answers), sep="\n")
    if out:
        mistakes.write(done.answers, out)
        print(f"\nfiles in {tables.printable(str(out))}")


def _check_flags(values, evaluations):
    given = [name for name in SOURCES if values[name].value]
    if not given:
        cli.require("workdir")
    if len(given) > 1:
        raise UsageError(
            f"Expected one of {', '.join(f'--{name}' for name in SOURCES)}. "
            f"Received: {', '.join(f'--{name}' for name in given)}."
        )
    cli.require_together(NEEDED)
    if values.model and not values.weights:
        raise UsageError("Expected --weights=FILE or a tag with --model.")
    if not values.on and not values.workdir:
        raise UsageError(f"Expected --on=DATA with --{given[0]}. Received: none.")
    if values.on and values.data:
        raise UsageError("Expected --on or --data. Received: both.")
    if not values.on and values.split not in (None, *SPLITS):
        raise UsageError(
            f"Expected --split as one of {', '.join(SPLITS)}. Received: {values.split}."
        )
    if values.out and evaluations > 1:
        raise UsageError(
            f"Expected one evaluation with --out. Received: {evaluations}; see --csv."
        )


def _classifier(values):
    """Returns the classifier and the columns that describe it."""
    if values.model:
        classifier = network_flags.classifier()
        source, model = values.weights, values.model
    elif values.saved_model:
        source = values.saved_model
        classifier = ExportedClassifier.load(pathlib.Path(source))
        model = classifier.model
    else:
        source = values.workdir
        classifier = image_classifier.of_run(pathlib.Path(source))
        model = classifier.card["model"]
    return classifier, {
        "source": source,
        "model": model,
        "version": classifier.version,
    }


def _image_sets(values, class_names):
    """Yields the data sets to evaluate on."""
    for name in dict.fromkeys(values.on):
        yield evaluation_sets.open_set(name, values.split, values.data_dir, class_names)
    if not values.on:
        spec = run_directory.read_spec(pathlib.Path(values.workdir))
        data = spec.load_data(values.data_dir, values.data)
        split = values.split or "test"
        yield evaluation_sets.of_split(
            data.settings.name, split, data.class_names, data.splits[split]
        )


def _evaluated(classifier, images, choices, corruption):
    values = flags.FLAGS
    if corruption and classifier.shape[-1] not in augment.DECODABLE:
        raise RunError(
            "Corruptions are for images with 1 or 3 channels. Received: "
            f"{classifier.shape[-1]}."
        )
    decode = functools.partial(
        augment.decode_and_resize,
        shape=classifier.shape,
        shorter_side=classifier.shorter_side,
        interpolation=classifier.interpolation,
    )
    to_network, among = choices
    batches = evaluation_sets.batches(
        images,
        decode,
        to_network,
        values.batch_size,
        (*corruption, values.seed) if corruption else None,
    )
    steps = -(-images.count // values.batch_size)
    shown = tqdm.tqdm(batches, total=steps, unit="batch", leave=False, disable=None)
    return evaluation.evaluate(classifier.logits, shown, classifier.class_names, among)


def _line(row, metrics, classes):
    where = [row["split"]]
    if flags.FLAGS.on:
        where.insert(0, row["data"])
    if row["corruption"]:
        where.append(f"{row['corruption']} {row['severity']}")
    means = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    counts = [f"{row['images']} images"]
    if row["left_out"]:
        counts.append(f"{row['left_out']} left out")
    if row["classes"] < classes:
        counts.append(f"{row['classes']} of {classes} classes")
    version = "step" if flags.FLAGS.workdir else "version"
    counts.append(f"{version} {row['version']}")
    return f"{tables.printable(' '.join(where))}  {means}  ({', '.join(counts)})"


if __name__ == "__main__":
    cli.run(main, define_flags)
