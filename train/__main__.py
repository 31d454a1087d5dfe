"""python -m train: trains a recipe, evaluates it, exports it and checks the export.

    python -m train --recipe=digits --workdir=runs/digits
    python -m train --recipe=photos --data=folder:DIR --workdir=runs/photos
    python -m train --recipes                          (lists all recipes)
    python -m train --recipe=photos --print_recipe     (prints its values)

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

# Flags that set a field, for which they are short.
SHORT = {"data": "data.name", "seed": "seed", "steps": "steps"}


def define_flags():
    flags.DEFINE_string("recipe", None, "Name of the recipe.")
    flags.DEFINE_boolean("recipes", False, "Prints all recipes, and ends.")
    flags.DEFINE_boolean(
        "print_recipe", False, "Prints source, command and values of the recipe."
    )
    paths.DEFINE_path("workdir", "Directory of the run.", paths.literal)
    flags.DEFINE_string("data", None, f"{config.DATA_SETS}.")
    paths.DEFINE_data_dir()
    strategies.DEFINE_devices()
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
    if values.recipes:
        tables.show(recipes.COLUMNS, recipes.rows(), width=recipes.WIDTH, fold=False)
        return
    cli.require("recipe")
    recipe = recipes.create_recipe(values.recipe)
    assignments = list(values.set)
    for flag, field in SHORT.items():
        if values[flag].value is None:
            continue
        if any(assignment.startswith(f"{field}=") for assignment in values.set):
            raise cli.UsageError(f"Expected --{flag} or --set={field}. Received: both.")
        assignments.append(f"{field}={values[flag].value}")
    recipe = config.override(recipe, assignments)
    if values.print_recipe:
        print(
            recipes.about(values.recipe, given_flags()),
            *fields.values(recipe),
            sep="\n",
        )
        return
    cli.require("workdir")

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


def given_flags() -> list[str]:
    """Returns the flags of the command line, without those that say what to print."""
    left_out = "recipe", "recipes", "print_recipe"
    return [
        line
        for flag in flags.FLAGS.get_key_flags_for_module(__name__)
        if flag.present and flag.name not in left_out
        for line in flag.serialize().splitlines()
    ]


if __name__ == "__main__":
    cli.run(main, define_flags)
