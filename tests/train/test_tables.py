"""Tables that contain names given by users."""

import csv
import json
import sys

import pytest

from train import files, tables
from train.cli import RunError

NAMES = [
    "digits[lr=0.1]",
    "digits[lr=0.2]",
    "[/run]",
    "[bold]x[/bold]",
    "[link=http://a.b]x[/link]",
    ":smile:",
    "\\[a]",
    "猫" * 40 + "1",
    "猫" * 40 + "2",
    "a" * 300 + "1",
    "a" * 300 + "2",
    "😀",
    "$x$",
]


def joined_cells(text):
    """Returns the first column of each row, joined where it was folded."""
    cells = []
    for line in text.splitlines():
        if line.startswith("│"):
            first, *others = (cell.strip() for cell in line.strip("│").split("│"))
            if any(others):
                cells.append(first)
            else:
                cells[-1] += first
    return cells


def test_names_are_shown_complete_and_literally(capsys):
    tables.show(["run", "top-1"], [(name, "0.5") for name in NAMES])
    assert joined_cells(capsys.readouterr().out) == NAMES


@pytest.mark.parametrize("fold", [True, False])
def test_cells_are_folded_on_a_narrow_terminal_unless_asked(monkeypatch, capsys, fold):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    name = "a_name_of_thirty_characters___"
    tables.show([name, name], [], fold=fold)
    assert capsys.readouterr().out.count(name) == (0 if fold else 2)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("caf\udce9", "caf\\udce9"),
        ("\u202eb", "\\u202eb"),
        ("Größe 猫", "Größe 猫"),
    ],
)
def test_characters_that_a_terminal_does_not_show_are_escaped(name, shown, capsys):
    tables.show([name], [(name,)], title=name)
    assert capsys.readouterr().out.count(shown) == 3


def test_cells_begin_below_each_other():
    rows = [("a", "猫", "x"), ("\x1b[2J", "b", "y"), ("c", "dd", "")]
    assert tables.aligned(rows) == ["a        猫  x", "\\x1b[2J  b   y", "c        dd"]
    assert tables.aligned([]) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [("abcd", "abcd"), ("abcde", "abc…"), ("猫猫猫", "猫 …"), ("", "")],
)
def test_long_names_are_shortened_to_their_width_in_a_terminal(text, shown):
    assert tables.shortened(text, 4) == shown


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("first", tables.FORMULA)
def test_text_is_not_a_formula_in_a_spreadsheet(first, tmp_path):
    path = tmp_path / "a.csv"
    tables.write_csv(path, [{"run": f"{first}1+1", f"{first}x": "a"}])
    assert read(path) == [{"run": f"'{first}1+1", f"'{first}x": "a"}]
    assert f'"\'{first}1+1"' in path.read_bytes().decode()


def test_numbers_stay_numbers(tmp_path):
    path = tmp_path / "a.csv"
    tables.write_csv(path, [{"run": "a;=1+1", "gain": -0.5, "steps": 3, "rate": None}])
    assert path.read_bytes() == (
        b'"run","gain","steps","rate"\r\n"a;=1+1",-0.5,3,""\r\n'
    )


def test_unusual_names_are_read_back(tmp_path):
    path = tmp_path / "a.csv"
    names = [*NAMES, 'quote"', "comma,", "line\nbreak", " =1", "'1"]
    tables.write_csv(path, [{"run": name} for name in names])
    assert [row["run"] for row in read(path)] == names
    tables.write_csv(path, [{"run": "caf\udce9"}])
    assert read(path) == [{"run": "caf\\udce9"}]


def test_rows_may_have_different_columns(tmp_path):
    path = tmp_path / "a.csv"
    tables.write_csv(path, [{"a": 1}, {"a": 2, "top5": 0.5}])
    assert read(path) == [{"a": "1", "top5": ""}, {"a": "2", "top5": "0.5"}]


def test_table_without_rows_has_a_header(tmp_path):
    path = tmp_path / "a.csv"
    tables.write_csv(path, [], ("a", "b"))
    assert path.read_bytes() == b'"a","b"\r\n'
    tables.write_csv(path, iter([{"b": 2}]), ("a", "b"))
    assert read(path) == [{"a": "", "b": "2"}]


def test_failed_write_keeps_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        tables.write_csv(path, [{"a": 1}])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunError, match="cannot hold a table. Expected a file"):
        tables.write_csv(tmp_path, [{"a": 1}])


def test_json_holds_any_names(tmp_path):
    path, rows = tmp_path / "a.json", [{"run": name} for name in (*NAMES, "caf\udce9")]
    tables.write_json(path, rows)
    assert json.loads(path.read_text()) == rows
    with pytest.raises(RunError, match="cannot hold a table. Expected a file"):
        tables.write_json(tmp_path, rows)


def test_link_to_a_table_stays_a_link(tmp_path):
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "a.csv")
    tables.write_csv(link, [{"a": 1}])
    assert link.is_symlink() and read(tmp_path / "a.csv") == [{"a": "1"}]


def test_rows_are_added_to_a_table_with_the_same_columns(tmp_path):
    file = tmp_path / "a.csv"
    for number in (1, 2):
        tables.append_csv(file, {"b": "=x", "a": number}, ("a", "b"))
    assert file.read_bytes() == b'"a","b"\r\n1,"\'=x"\r\n2,"\'=x"\r\n'
    (tmp_path / "b.csv").touch()
    tables.append_csv(tmp_path / "b.csv", {"a": 1}, ("a", "b"))
    assert (tmp_path / "b.csv").read_bytes() == b'"a","b"\r\n1,""\r\n'
    file.write_bytes(file.read_bytes()[:-2])  # as some editors leave it
    tables.append_csv(file, {"a": 3}, ("a", "b"))
    assert file.read_text().splitlines()[-2:] == ['2,"\'=x"', '3,""']


@pytest.mark.parametrize("content", [b"a,b\n", b'"a"\n', b"\xff\xfe"])
def test_tables_with_other_columns_are_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    for add in (
        lambda path: tables.require_columns(path, ("a", "b")),
        lambda path: tables.append_csv(path, {}, ("a", "b")),
    ):
        with pytest.raises(RunError, match="has other columns"):
            add(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == content
    with pytest.raises(RunError, match="cannot hold a table"):
        tables.require_columns(tmp_path, ("a", "b"))
