"""Rehearses the training on ImageNet with made-up images: `make imagenet-smoke`.

    python tests/imagenet_smoke.py DIR

Prepares data sets with the names, features and files of the real ones: `imagenet2012`
(1,000 classes, JPEGs of 300 to 600 pixels, several record files), `imagenet_v2` and
`imagenet_a`. Then, for a recipe of 120 and one of 200 epochs, each shortened to a few
steps of a small batch on two replicas that read the record files:

1. trains without a stop, evaluates, exports, and checks the export;
2. trains with a SIGTERM in the middle, resumes, and compares all variables;
3. evaluates on the other two data sets.

It checks that the settings of the recipe are those that were trained with, but for the
shortened ones, that both replicas and the record files are used, and that the export
was written and checked. The accuracies mean nothing after six steps: whether labels are
those of the images is tested in tests/train/input. Runs of an earlier start are
deleted, data is kept.
"""

import csv
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import fake_imagenet
import numpy as np
import tensorflow_datasets as tfds

from model_zoo.preprocessing import imagenet_classes
from train import fields, recipes
from train.engine import run_directory

RECIPES = ("resnet50_an_120e", "resnet50d_an_200e")
IDS = [wordnet_id for wordnet_id, _ in imagenet_classes()]
SETTINGS = (
    *("--strategy=mirrored", "--logical_cpus=2", "--set=batch_size=8", "--steps=6"),
    *("--set=steps_per_loop=1", "--set=data.memory_limit=0", "--set=precision=float32"),
)
SHORTENED = ("batch_size", "steps", "steps_per_loop", "precision", "data.memory_limit")
LINE = re.compile(r"^state +step (\d+) +sha256 (\w+)$", re.MULTILINE)


def images(labels, file_name):
    """Yields an example for each label: smooth noise with a colour of its class."""
    random = np.random.default_rng(len(labels))
    for number, label in enumerate(labels):
        height, width = random.integers(300, 600, 2)
        coarse = random.integers(0, 120, (height // 25 + 1, width // 25 + 1, 3))
        pixels = coarse.repeat(25, 0).repeat(25, 1)[:height, :width]
        colour = np.random.default_rng(label).integers(0, 136, 3)
        yield {
            "image": (pixels + colour).astype(np.uint8),
            "label": int(label),
            "file_name": file_name(label, number),
        }


def prepare(directory):
    """Prepares the data sets, unless they are there."""
    every = np.arange(1000)
    v2, of_a = "imagenet_v2/matched-frequency", every[::5]
    for name, splits, shards in (
        (
            "imagenet2012",
            {
                "train": [*images(every.repeat(2), lambda n, i: f"{IDS[n]}_{i}.JPEG")],
                "validation": [*images(every[::2], lambda n, i: f"val_{i:08}.JPEG")],
            },
            8,
        ),
        (v2, {"test": [*images(every[::10], lambda n, i: f"{n}/{i}.jpeg")]}, 1),
        ("imagenet_a", {"test": [*images(of_a, lambda n, i: f"{i}.jpg")]}, 1),
    ):
        if not tfds.builder(name, data_dir=directory).info.splits:
            shutil.rmtree(directory / name, ignore_errors=True)  # of a killed one
            print(f"preparing {name}", flush=True)
            fake_imagenet.prepare(name, directory, splits, shards)


def call(*arguments, stop_after=None, expected=0):
    """Runs `python -m`, stops it after a line of its output, and returns the output."""
    print("$ python -m", *arguments, flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
        if stop_after and line.startswith(stop_after):
            process.send_signal(signal.SIGTERM)
            stop_after = None
    require(expected, process.wait(), "exit code")
    return "".join(lines)


def require(expected, received, what):
    if expected != received:
        raise SystemExit(f"{what}: expected {expected}. Received: {received}.")


def check_settings(recipe, workdir):
    """Compares the recipe that a run has saved with the one of its name."""
    saved = fields.flat(run_directory.read_spec(workdir).recipe)
    for name, value in fields.flat(recipes.create_recipe(recipe)).items():
        if name not in SHORTENED and value is not None:  # filled in, such as the mean
            require(value, saved[name], f"{recipe}, {name}")


def rehearse(recipe, directory):
    """Trains, resumes, exports and evaluates one recipe."""
    data, table = f"--data_dir={directory / 'data'}", directory / "evaluations.csv"
    train = ("train", f"--recipe={recipe}", *SETTINGS, data)
    for workdir in (directory / recipe, directory / f"{recipe}_stopped"):
        shutil.rmtree(workdir, ignore_errors=True)
    whole = call(*train, f"--workdir={directory / recipe}")
    check_settings(recipe, directory / recipe)
    for line in ("devices  2 replica(s)", "served   "):
        require(True, line in whole, f"{line!r} in the output")
    exports = [*(directory / recipe / "export").glob("*/saved_model.pb")]
    require(1, len(exports), "number of exports")
    stopped = f"--workdir={directory / recipe}_stopped"
    call(*train, stopped, "--noexport", stop_after="step 3/6", expected=75)
    resumed = call(*train, stopped, "--noexport")
    begun = re.search(r"going on from step (\d+)", resumed)
    require(True, begun is not None and 0 < int(begun[1]) < 6, "resumed in the middle")
    expected, received = (LINE.findall(text)[-1:] for text in (whole, resumed))
    require(1, len(received), "number of final states")
    require(expected, received, "variables")
    print(f"{recipe}: resumed with equal variables, sha256 {received[0][1][:12]}")
    on = "--on=imagenet_v2/matched-frequency", "--on=imagenet_a"
    call(
        "train.evaluate", f"--workdir={directory / recipe}", *on, data, f"--csv={table}"
    )


def main():
    directory, start = pathlib.Path(sys.argv[1]).absolute(), time.monotonic()
    prepare(directory / "data")
    for recipe in RECIPES:
        rehearse(recipe, directory)
    with (directory / "evaluations.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)][-2 * len(RECIPES) :]
    counted = [(row["data"], row["images"], row["classes"]) for row in rows]
    expected = [
        ("imagenet_v2/matched-frequency", "100", "1000"),
        ("imagenet_a", "200", "200"),
    ]
    require(expected * len(RECIPES), counted, "evaluations")
    print(f"imagenet-smoke passed in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
