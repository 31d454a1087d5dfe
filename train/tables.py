"""Tables that contain names given by users, in the terminal, as CSV and as JSON.

Names are shown literally: not read as markup by rich, as escape sequences by a terminal
or as formulas by a spreadsheet.
"""

import csv
import fcntl
import io
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence

import rich.cells
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


def show(
    columns, rows, title: str | None = None, width: int = 100, fold: bool = True
) -> None:
    """Prints a table, `width` characters wide if the output is not a terminal.

    On a narrower terminal, cells are folded; without `fold`, the terminal breaks lines.
    """
    table = rich.table.Table(
        *(rich.table.Column(_cell(name), overflow="fold") for name in columns),
        title=title and _cell(title),
    )
    for cells in rows:
        table.add_row(*map(_cell, cells))
    console = rich.console.Console()
    if not sys.stdout.isatty() or (not fold and console.width < width):
        console.width = width
    console.print(table)


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns a line for each row, whose cells begin below those of other rows."""
    columns = []
    for column in zip(*rows, strict=True):
        cells = [printable(cell) for cell in column]
        width = max(map(rich.cells.cell_len, cells))
        columns.append([rich.cells.set_cell_size(cell, width) for cell in cells])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def shortened(text: str, width: int) -> str:
    """Returns a text that is at most `width` characters of a terminal wide."""
    cell = _cell(text)
    cell.truncate(width, overflow="ellipsis")
    return cell.plain


def _cell(text):
    return Text(printable(text))


def write_csv(
    path: pathlib.Path, rows: Iterable[dict], columns: Sequence[str] = ()
) -> None:
    """Writes a CSV file atomically.

    Text is quoted, and prefixed with an apostrophe if it would start a formula.

    Args:
        path: Path of the file.
        rows: Values by column. If `columns` are given, they may be an iterator.
        columns: Names of the columns. Defaults to the keys of all rows.

    Raises:
        RunError: If something other than a file is there.
    """
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    cells = ([_value(row.get(name, "")) for name in columns] for row in rows)
    _write(path, _csv([[*map(_value, columns)], *cells]))


def _write(path, text):
    with _replaced(path, newline="", errors="backslashreplace") as file:
        file.write(text)


def append_csv(path: pathlib.Path, row: dict, columns: Sequence[str]) -> None:
    """Adds a row to a CSV file with these columns, which may not exist yet.

    Several processes may add rows to one file.

    Raises:
        RunError: If the file has other columns, or is none.
    """
    require_columns(path, columns)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        old = file.read()
        rows = [[_value(row.get(name, "")) for name in columns]]
        text = _csv(rows if old else [columns, *rows])
        if old and not old.endswith(b"\n"):  # as some editors leave it
            file.write(b"\n")
        file.write(text.encode(errors="backslashreplace"))


def require_columns(path: pathlib.Path, columns: Sequence[str]) -> None:
    """Checks that `append_csv` can add rows to a file, if it exists.

    Raises:
        RunError: If it has other columns, or is no CSV file.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise _no_table(path)
    with path.open("rb") as file:
        header = file.readline().decode(errors="backslashreplace").strip()
    expected = _csv([columns]).strip()
    if header not in ("", expected):
        raise RunError(
            f"{path} has other columns. Expected {expected}. Received: {header[:200]}."
        )


def _csv(rows):
    table = io.StringIO(newline="")
    csv.writer(table, quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    return table.getvalue()


def write_json(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes a JSON file atomically: a list of objects.

    Raises:
        RunError: If something other than a file is there.
    """
    with _replaced(path) as file:
        json.dump(rows, file, indent=1)


def _replaced(path, **options):
    if path.exists() and not path.is_file():
        raise _no_table(path)
    path = path.resolve()  # writes to the target of a link
    return files.replaced(path, encoding="utf-8", **options)


def _no_table(path):
    return RunError(
        f"{path} cannot hold a table. Expected a file. Received: a directory or device."
    )


def _value(value):
    if isinstance(value, (int, float)):
        return value
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
