"""The door to `benchmarks/`; `--help` prints what is said there."""

from benchmarks.__main__ import __doc__, define_flags, main  # noqa: F401
from train import cli

if __name__ == "__main__":
    cli.run(main, define_flags)
