"""Tables that contain names given by users, in the terminal and as CSV.

Names are shown literally: not read as markup by rich, as escape sequences by a terminal
or as formulas by a spreadsheet.
"""

import csv
import io
import pathlib
import sys

import rich.console
import rich.table
from rich.text import Text

from train import files
from train.cli import RunError

# What spreadsheets read as the start of a formula, or skip before one.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def printable(text: str) -> str:
    """Replaces characters that a terminal would not show with Python escapes."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text
    )


def show(columns, rows, title: str | None = None, width: int = 100) -> None:
    """Prints a table, `width` characters wide if the output is not a terminal."""
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
    """Writes a CSV file atomically, with a column for each key.

    Text is quoted, and prefixed with an apostrophe if it would start a formula.

    Raises:
        RunError: If something other than a file is there.
    """
    if path.exists() and not path.is_file():
        raise RunError(
            f"{path} cannot hold a table. Expected a file. Received: a directory or "
            "device."
        )
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(map(_value, columns))
    writer.writerows([_value(row.get(name, "")) for name in columns] for row in rows)
    path = path.resolve()  # writes to the target of a link
    with files.replaced(
        path, newline="", encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(table.getvalue())


def _value(value):
    if isinstance(value, (int, float)):
        return value
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
