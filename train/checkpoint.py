"""python -m train.checkpoint: what the last checkpoint of a run holds.

    python -m train.checkpoint digest RUN

Prints the step of the last checkpoint and the sha256 of all its variables: equal for
runs that are equal to the last bit.
"""

import pathlib

from train import cli
from train.engine import checkpoint
from train.paths import literal


def main(arguments):
    if len(arguments) != 2 or arguments[0] != "digest":
        raise cli.UsageError(
            f"Expected: digest RUN. Received: {' '.join(arguments) or 'none'}."
        )
    step, sha256 = checkpoint.digest(pathlib.Path(literal(arguments[1], "RUN")))
    print(f"step {step}  sha256 {sha256}")


if __name__ == "__main__":
    cli.run(main, lambda: None)
