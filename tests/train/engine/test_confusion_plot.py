"""The plot of a confusion matrix."""

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from train import files
from train.engine import confusion_plot


@pytest.fixture
def texts(monkeypatch):
    """Collects the texts in a plot when it is written."""
    collected = []
    write = Figure.savefig

    def savefig(figure, *arguments, **options):
        write(figure, *arguments, **options)
        (axis,) = figure.axes
        columns, rows = axis.get_xticklabels(), axis.get_yticklabels()
        assert [t.get_text() for t in columns] == [t.get_text() for t in rows]
        collected.append(
            {
                "names": [label.get_text() for label in rows],
                "counts": {text.get_position(): text.get_text() for text in axis.texts},
                "title": axis.get_title(),
                "label": axis.get_xlabel(),
            }
        )

    monkeypatch.setattr(Figure, "savefig", savefig)
    return collected


def test_counts_stand_in_the_row_of_the_true_class(tmp_path, texts):
    path = tmp_path / "a.png"
    confusion_plot.write(np.array([[5, 2], [0, 0]]), ("cat", "dog"), path)
    with PIL.Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 400
    assert texts == [
        {
            "names": ["cat", "dog"],
            "counts": {(0, 0): "5", (1, 0): "2"},
            "title": "",
            "label": "predicted class",
        }
    ]


def test_names_are_shown_literally_or_as_numbers(tmp_path, texts):
    names = ("Größe żółw кошка", "猫", "$x_1$", "_a", "a" * 99, "\u202eb")
    confusion_plot.write(np.eye(6, dtype=int), names, tmp_path / "a.png")
    (plot,) = texts
    shown = ["Größe żółw кошка", "#1", "$x_1$", "_a", "a" * 39 + "…", "\\u202eb"]
    assert plot["names"] == shown
    assert "#: number of a class whose name the font cannot show" in plot["label"]


def test_largest_plots_have_the_classes_with_the_most_mistakes(tmp_path, texts):
    counts = np.diag(np.full(1000, 50))
    counts[700:799, 900] = 1
    names = tuple(f"class {number}" for number in range(1000))
    confusion_plot.write(counts, names, tmp_path / "a.png")
    (plot,) = texts
    assert plot["names"] == [*names[700:799], names[900]]
    assert plot["title"] == "100 of 1000 classes, those with the most mistakes"
    assert plot["counts"][99, 0] == "1" and plot["counts"][0, 0] == "50"


def test_failed_write_keeps_the_old_plot(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        confusion_plot.write(np.eye(2, dtype=int), ("a", "b"), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
