"""python -m experiments.transfer: does a classifier's backbone help a detector?

    python -m experiments.transfer --records=DIR --data=idx:DIR --out=runs/transfer

trains a classifier of single items for each network; then Mask R-CNN on the scenes in
`--records`, from the classifier's weights and from scratch, with each seed. Detectors
have a row each in `OUT/transfer.csv`. Started again, it goes on.

The detector is that of `an_maskrcnn_scenes`, with scenes at 128 pixels and fewer steps.
All its weights are trained in both cases, and only the backbone's initial ones differ.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import statistics
import sys

from absl import flags

from train import cli, files, paths, recipes, tables
from train.study import schedule

NETWORKS = {"BN": "resnet14_w16_bn", "AN": "resnet14_w16_an"}
STARTS = ("scratch", "classifier")
# Items are shown larger than they are, as in the scenes, and in part.
CLASSIFIER = {"data.image_size": 64, "data.min_crop_area": 0.5, "epochs": 6}
OUTCOMES = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a command: the name of its log, and its flags."""

    name: str
    flags: tuple[str, ...]


def define_flags():
    paths.DEFINE_path("records", "What train.detection.prepare wrote.", paths.literal)
    flags.DEFINE_string("data", None, "Data set of the classifiers: the scenes' items.")
    paths.DEFINE_path("out", "Directory of the runs.", paths.literal)
    flags.DEFINE_integer("steps", 1000, "Training steps of a detector.", 100, 2**20)
    flags.DEFINE_integer("seeds", 3, "Number of seeds.", 1, 100)
    flags.DEFINE_integer("processes", 2, "Runs at a time.", 1, 64)


def main(arguments):
    cli.no_arguments(arguments)
    for name in ("records", "data", "out"):
        cli.require(name)
    values = flags.FLAGS
    out = pathlib.Path(values.out)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    cases = [*itertools.product(range(values.seeds), NETWORKS, STARTS)]
    with cli.lock(out, "is training in"):
        classifiers = [classifier(values, network) for network in NETWORKS]
        left = [run for run in classifiers if results(values, run) is None]
        execute(values, "train", left)
        detectors = [detector(values, *case) for case in cases]
        left = [
            run
            for run in detectors
            if (results(values, run) or {}).get("step") != values.steps
        ]
        execute(values, "train.detection", left)
        rows = [
            {
                **dict(zip(("seed", "network", "start"), case, strict=True)),
                **results(values, run),
            }
            for case, run in zip(cases, detectors, strict=True)
        ]
        tables.write_csv(out / "transfer.csv", rows)
    print(*tables.aligned([("network", "start", *OUTCOMES), *summary(rows)]), sep="\n")


def results(values, run: Run) -> dict | None:
    """Returns the results of a run, which it has at its end."""
    path = pathlib.Path(values.out, run.name, "results.json")
    return json.loads(path.read_text()) if path.exists() else None


def execute(values, module, runs):
    """Runs a command several times; raises `RunError` if it fails once."""
    scheduled = schedule.Schedule(
        pathlib.Path(values.out, "logs"),
        values.processes,
        functools.partial(print, flush=True),
        (sys.executable, "-m", module),
    )
    for run, code, seconds in scheduled.execute(runs):
        if code != cli.DONE:
            raise cli.RunError(f"{run.name} failed. {scheduled.error(run)}")
        print(f"done     {run.name}  {seconds:.0f} s", flush=True)


def recipe(network: str) -> str:
    """Returns the name of the classifier's recipe, whose network is replaced."""
    return f"fashion_mnist_resnet20_{network.lower()}"


def classifier(values, network: str) -> Run:
    """Returns the run of `python -m train` for a network, BN or AN."""
    name = f"classifier_{network}"
    settings = {"model.name": NETWORKS[network], **CLASSIFIER}
    return Run(
        name,
        (
            f"--recipe={recipe(network)}",
            f"--data={values.data}",
            f"--workdir={values.out}/{name}",
            *(f"--set={field}={value}" for field, value in settings.items()),
        ),
    )


def detector(values, seed: int, network: str, start: str) -> Run:
    """Returns a run of `python -m train.detection`, and writes its parameters."""
    is_transfer = start == "classifier"
    data = recipes.create_recipe(recipe(network)).data
    pixels = {"mean": data.mean, "std": data.std}  # with and without a classifier
    parameters = {
        "task": {
            "weights": f"{values.out}/classifier_{network}" if is_transfer else "",
            "annotation_file": f"{values.records}/instances_val2017.json",
            "model": {
                "input_size": [128, 128, 3],
                "backbone": {"zoo": {"name": NETWORKS[network], **pixels}},
            },
            "train_data": {"input_path": f"{values.records}/train2017-*"},
            "validation_data": {"input_path": f"{values.records}/val2017-*"},
        },
        "trainer": {
            "train_steps": values.steps,
            "validation_interval": values.steps,
            "optimizer_config": {
                "learning_rate": {"cosine": {"decay_steps": values.steps}}
            },
        },
    }
    name = f"{network}_{start}_{seed}"
    file = pathlib.Path(values.out, f"{name}.yaml")
    with files.replaced(file) as opened:
        json.dump(parameters, opened, indent=2)  # JSON is YAML
    return Run(
        name,
        (
            "--experiment=an_maskrcnn_scenes",
            f"--config_file={file}",
            f"--model_dir={values.out}/{name}",
            f"--seed={seed}",
        ),
    )


def summary(rows):
    """Yields mean, least and largest of each outcome for each network and start."""
    for network, start in itertools.product(NETWORKS, STARTS):
        chosen = [r for r in rows if (r["network"], r["start"]) == (network, start)]
        values = ([float(row[name]) for row in chosen] for name in OUTCOMES)
        yield (
            network,
            start,
            *(f"{statistics.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in values),
        )


if __name__ == "__main__":
    cli.run(main, define_flags)
