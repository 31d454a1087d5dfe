"""Reference arrays of the published implementation; see README.md beside this file."""

import pathlib

GOLDEN = pathlib.Path(__file__).parent
