"""Tables with users' names in them, in the terminal and as CSV.

Names are shown as they are: rich reads no markup in them, a terminal no escape
sequences, and a spreadsheet no formulas.
"""

import csv
import io
import os
import pathlib
import sys

import rich.console
import rich.table
from rich.text import Text

from train.cli import RunError

# What spreadsheets take for the begin of a formula, and skip in front of one.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def printable(text: str) -> str:
    """With escapes, as in Python, for what a terminal would not show."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def show(columns, rows, title: str | None = None, width: int = 100) -> None:
    """Prints a table; `width` characters where the terminal does not say."""
    table = rich.table.Table(
        *(rich.table.Column(_cell(name), overflow="fold") for name in columns),
        title=title and _cell(title),
    )
    for cells in rows:
        table.add_row(*map(_cell, cells))
    width = None if sys.stdout.isatty() else width
    rich.console.Console(width=width).print(table)


def _cell(text):
    return Text(printable(text))


def write_csv(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes a CSV file that is complete or not there; a column for each key.

    Text is quoted, and begins with an apostrophe where it would begin a formula.

    Raises:
        RunError: something else than a file is there.
    """
    if path.exists() and not path.is_file():
        raise RunError(
            f"{path} takes no table. Expected a file. Received: a directory or device."
        )
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(map(_value, columns))
    writer.writerows([_value(row.get(name, "")) for name in columns] for row in rows)
    path = path.resolve()  # a link stays one
    aside = path.with_name(f"{path.name}.writing")
    try:
        with aside.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as f:
            f.write(table.getvalue())
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _value(value):
    if isinstance(value, (int, float)):
        return value
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
