"""python -m train: trains a recipe, evaluates it, exports it and checks the export.

    python -m train --recipe=digits --workdir=runs/digits
    python -m train --recipe=photos --data=folder:DIR --workdir=runs/photos
    python -m train --recipe=list
    python -m train --recipe=photos         (prints the values of the recipe)

Started again with the same flags, it resumes where it stopped. `--set=FIELD=VALUE` sets
any field of the recipe; `--help` lists them.
"""

import pathlib
import signal

from absl import flags

from train import cli
from train.engine import preemption

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback during imports
    preemption.STOP_SIGNAL.listen()  # before imports that take seconds

from train import config, fields, paths, recipes, tables
from train.engine import strategies


def define_flags():
    flags.DEFINE_string("recipe", None, "Name of the recipe; list prints all.")
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal)
    flags.DEFINE_string("data", None, f"{config.DATA_SETS}.")
    paths.DEFINE_data_dir()
    flags.DEFINE_enum("strategy", "one", strategies.NAMES, "Devices to train on.")
    flags.DEFINE_float(
        "join_timeout", 600.0, "Seconds to wait for the other workers.", lower_bound=0
    )
    flags.DEFINE_string("tpu", None, "Name or address of the TPU; local: this machine.")
    flags.DEFINE_integer(
        "logical_cpus", 1, "Splits the CPU into this many devices.", 1, 1024
    )
    flags.DEFINE_integer(
        "seed", None, "Seed of initialization, order and augmentation.", 0, 2**31 - 1
    )
    flags.DEFINE_integer(
        "steps", None, "Length of the run; default: the recipe's.", 1, 2**40
    )
    flags.DEFINE_boolean("export", True, "Export the best weights at the end.")
    flags.DEFINE_multi_string(
        "set", [], f"FIELD=VALUE, sets a field of the recipe:\n{fields.listing()}"
    )


def main(arguments):
    cli.no_arguments(arguments)
    values = flags.FLAGS
    cli.require("recipe")
    if values.recipe not in recipes.RECIPES:
        tables.show(recipes.COLUMNS, recipes.rows())
    if values.recipe == "list":
        return
    recipe = recipes.create_recipe(values.recipe)
    if not values.workdir:
        print(*fields.values(recipe), sep="\n", flush=True)
    cli.require("workdir")
    assignments = list(values.set)
    for flag, field in (("data", "data.name"), ("seed", "seed"), ("steps", "steps")):
        if values[flag].value is not None:
            assignments.append(f"{field}={values[flag].value}")
    recipe = config.override(recipe, assignments)

    with cli.imports():  # of TensorFlow: errors above are reported at once
        from train.engine import loop
        from train.engine.run import Run
        from train.export.finish import export_best

    strategy = strategies.create(
        values.strategy, values.logical_cpus, values.tpu, values.join_timeout
    )
    workdir = pathlib.Path(values.workdir)
    with (
        strategies.together(strategy),
        Run.open(
            workdir, recipe, strategy, values.data_dir, preemption.STOP_SIGNAL
        ) as run,
    ):
        loop.train(run)
        results = loop.test(run)
        if values.export:
            export_best(run, results)
        run.wait_for_chief()


if __name__ == "__main__":
    cli.run(main, define_flags)
