"""python -m train.detection: Mask R-CNN with networks of the zoo, by Model Garden.

    python -m train.detection --experiment=an_maskrcnn_coco --model_dir=runs/coco
    python -m train.detection --experiments            (lists all experiments)

Data comes from `python -m train.detection.prepare`, in `coco/` unless parameters say
otherwise. `--params_override=task.weights=RUN,trainer.train_steps=100` sets parameters
of Model Garden's `ExperimentConfig`, as CSV, YAML or the name of a YAML file. Started
again with the same flags, it resumes from the last checkpoint.
"""

import contextlib
import difflib
import os
import pathlib
import signal

from absl import flags

from train import cli
from train.engine import preemption

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback during imports
    preemption.STOP_SIGNAL.listen()  # before imports that take seconds

from train import paths, tables
from train.detection import rows
from train.engine import strategies

MODES = ("train_and_eval", "train", "eval")


def define_flags():
    flags.DEFINE_string("experiment", None, "Name of the experiment.")
    flags.DEFINE_boolean("experiments", False, "Prints all experiments, and ends.")
    flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do.")
    paths.DEFINE_path("model_dir", "Directory of the run.", paths.literal)
    flags.DEFINE_multi_string("config_file", [], "YAML files that set parameters.")
    flags.DEFINE_string("params_override", None, "Parameters, set after the files.")
    strategies.DEFINE_devices()
    flags.DEFINE_integer("seed", 0, "Seed of initialization and data.", 0, 2**31 - 1)


def main(arguments):
    cli.no_arguments(arguments)
    values = flags.FLAGS
    if values.experiments:
        tables.show(rows.COLUMNS, rows.listing())
        return
    cli.require("experiment")
    cli.require("model_dir")
    if values.experiment not in rows.EXPERIMENTS:
        near = difflib.get_close_matches(values.experiment, rows.EXPERIMENTS, n=4)
        raise cli.UsageError(
            f"Unknown experiment. Expected one of --experiments"
            f"{', like ' if near else ''}{', '.join(near)}. "
            f"Received: {values.experiment!r}."
        )
    if values.strategy == "multi_worker" and values.mode != "train":
        raise cli.UsageError(
            "With --strategy=multi_worker, each worker would evaluate other images. "
            "Expected --mode=train, and --mode=eval in one process. "
            f"Received: --mode={values.mode}."
        )

    if values.logical_cpus > 1:
        # oneDNN's convolutions give an empty batch, which the last replica can get at
        # the end of an evaluation, a wrong shape.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with cli.imports():  # of TensorFlow: errors above are reported at once
        from train.detection import parameters, run

    params = parameters.parse(
        values.experiment, values.config_file, values.params_override, values.seed
    )
    strategy = strategies.create(
        values.strategy, values.logical_cpus, values.tpu, values.join_timeout
    )
    model_dir = pathlib.Path(values.model_dir)
    model_dir.mkdir(parents=True, exist_ok=True)
    is_chief = strategies.is_chief(strategy)
    lock = (
        cli.lock(model_dir, "is training in") if is_chief else contextlib.nullcontext()
    )
    with strategies.together(strategy), lock:
        run.run(params, values.mode, strategy, model_dir)


if __name__ == "__main__":
    cli.run(main, define_flags)
