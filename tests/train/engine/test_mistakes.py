"""Tables of classes, confusions and wrong images."""

import csv

import numpy as np
import pytest
from rich.cells import cell_len

from train.engine import mistakes

NAMES = ("cat", "猫と犬", "a very long name of a class that nobody can remember")


def answers(labels, guesses, names=NAMES, images=None):
    labels, guesses = np.array(labels), np.array(guesses)
    probabilities = np.linspace(0.5, 1, len(labels), dtype=np.float32)
    images = range(len(labels)) if images is None else images
    return mistakes.Answers(tuple(names), images, labels, guesses, probabilities)


def many(classes, each=2):
    """The first image of every class is right, the others are taken for the next."""
    labels = np.repeat(np.arange(classes), each)
    guesses = np.where(np.arange(len(labels)) % each, (labels + 1) % classes, labels)
    return answers(labels, guesses, [f"class {n}" for n in range(classes)])


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_rows_of_classes_count_their_images():
    rows = answers([0, 0, 0, 2], [0, 1, 1, 0]).classes()
    assert [tuple(row.values()) for row in rows] == [
        (0, "cat", 3, 1, 1 / 3),
        (1, NAMES[1], 0, 0, None),
        (2, NAMES[2], 1, 0, 0.0),
    ]


def test_matrix_has_a_row_for_each_true_class():
    one = answers([0, 0, 0, 2], [0, 1, 1, 0])
    assert one.confusion.tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert one.confusions() == [(2, "cat", NAMES[1]), (1, NAMES[2], "cat")]


def test_wrong_images_are_sorted_by_confidence():
    one = answers([0, 1, 1, 2], [1, 1, 0, 2], images=["a", "b", "c", "d"])
    (most, *classes, path), (least, *_, other) = one.wrong()
    assert classes == [NAMES[1], "cat"] and (path, other) == ("c", "a")
    assert most == pytest.approx(5 / 6) and least == 0.5


def test_screen_shows_classes_matrix_and_wrong_images():
    one = answers([0, 0, 0, 2], [0, 1, 1, 0], images=["a.png", "b", "c", "d"])
    assert mistakes.summary(one) == [
        "",
        "classes: 3",
        "number  images  correct  accuracy  class",
        "     0       3        1    0.3333  cat",
        "     1       0        0            猫と犬",
        f"     2       1        0    0.0000  {NAMES[2]}",
        "",
        "confusion matrix: a row for each true class, a column for each guess",
        "  0 1 2",
        "0 1 2 .  cat",
        "1 . . .  猫と犬",
        "2 1 . .  a very long name of a c…",
        "",
        "wrong: 3 of 4 images, most confident first",
        "probability  true class                predicted class  image",
        "     1.0000  a very long name of a c…  cat              d",
        "     0.8333  cat                       猫と犬           c",
        "     0.6667  cat                       猫と犬           b",
    ]


@pytest.mark.parametrize(("classes", "has_matrix"), [(20, True), (30, False)])
def test_many_classes_have_a_list_of_confusions_instead(classes, has_matrix):
    lines = mistakes.summary(many(classes))
    matrix = "confusion matrix: a row for each true class, a column for each guess"
    assert (matrix in lines) == has_matrix
    listed = f"confusions: {classes}, most frequent first"
    assert (listed in lines) != has_matrix
    assert max(map(cell_len, lines)) <= 80


def test_lists_are_limited_and_say_how_much_is_missing():
    lines = mistakes.summary(many(30, each=3))
    title = lines.index("confusions: 30, most frequent first")
    assert lines[title + 1] == "     2  class 0 taken for class 1"
    assert lines[title + 21] == "and 10 more; --out=DIR writes all"
    assert lines[-1] == "and 40 more; --out=DIR writes all"
    assert "classes: 30, least accurate first" in lines


def test_least_accurate_classes_come_first_if_not_all_are_shown():
    labels = np.repeat(np.arange(25), 2)
    guesses = np.where(labels == 24, 0, labels)
    lines = mistakes.summary(answers(labels, guesses, map(str, range(26))))
    assert lines[3] == "    24       2        0    0.0000  24"
    assert lines[23] == "and 5 more; --out=DIR writes all"  # class 25 has no images


def test_files_hold_everything(tmp_path):
    one = many(30, each=3)
    mistakes.write(one, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("classes.csv", "confusion.csv", "confusion.png", "wrong.csv")
    }
    header, *classes = read(tmp_path / "classes.csv")
    assert header == ["number", "class", "images", "correct", "accuracy"]
    assert classes[29] == ["29", "class 29", "3", "1", str(1 / 3)]
    header, *rows = read(tmp_path / "confusion.csv")
    assert header == ["", *one.class_names]
    assert [row[0] for row in rows] == header[1:]
    counts = np.array([row[1:] for row in rows], int)
    np.testing.assert_array_equal(counts, one.confusion)
    header, *wrong = read(tmp_path / "wrong.csv")
    assert header == ["probability", "true class", "predicted class", "image"]
    assert len(wrong) == 60 and wrong[0] == ["1.0", "class 29", "class 0", "89"]


def test_files_of_a_faultless_network_have_headers(tmp_path):
    one = answers([0, 1, 2], [0, 1, 2])
    mistakes.write(one, tmp_path)
    assert read(tmp_path / "wrong.csv") == [list(mistakes.WRONG)]
    assert mistakes.summary(one)[-1] == "wrong: 0 of 3 images"
