"""What a network gets wrong in a split: which classes, and which images."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
import sklearn.metrics

from train import tables

LONGEST = 20  # lines of a list on the screen
WIDTH = 80  # characters of the screen
NAME, LEAST = 24, 8  # characters of a class name; the files hold all of it
WRONG = ("probability", "true class", "predicted class", "image")


@dataclasses.dataclass(frozen=True)
class Answers:
    """A network's first guesses for all images of a split.

    Attributes:
        class_names: One name for each label.
        images: Path or index of each image, as `Split.names` returns them.
        labels, guesses: True and predicted label of each image, (N,).
        probabilities: Probability of each guess, (N,).
    """

    class_names: tuple[str, ...]
    images: Sequence[int | str]
    labels: np.ndarray
    guesses: np.ndarray
    probabilities: np.ndarray

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Numbers of images by true and predicted label, (classes, classes)."""
        return sklearn.metrics.confusion_matrix(
            self.labels, self.guesses, labels=range(len(self.class_names))
        )

    def classes(self) -> list[dict]:
        """Returns a row for each class; a class without images has no accuracy."""
        rows = []
        for number, name in enumerate(self.class_names):
            images = int(self.confusion[number].sum())
            correct = int(self.confusion[number, number])
            accuracy = correct / images if images else None
            row = {"number": number, "class": name, "images": images}
            rows.append({**row, "correct": correct, "accuracy": accuracy})
        return rows

    def confusions(self) -> list[tuple[int, str, str]]:
        """Returns number, true and predicted class, the most frequent ones first."""
        names, wrong = self.class_names, self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        pairs = zip(*np.nonzero(wrong), strict=True)
        counted = [(int(wrong[a, b]), names[a], names[b]) for a, b in pairs]
        return sorted(counted, key=lambda each: -each[0])

    def wrong(self) -> list[tuple[float, str, str, int | str]]:
        """Returns `WRONG` for each wrong image, the most confident answers first."""
        places = np.flatnonzero(self.labels != self.guesses)
        return [
            (
                float(self.probabilities[place]),
                self.class_names[self.labels[place]],
                self.class_names[self.guesses[place]],
                self.images[place],
            )
            for place in places[np.argsort(-self.probabilities[places], kind="stable")]
        ]


def summary(answers: Answers) -> list[str]:
    """Returns the lines that describe the answers on a screen."""
    return [
        *_class_lines(answers.classes()),
        *(_matrix_lines(answers) or _confusion_lines(answers.confusions())),
        *_wrong_lines(answers.wrong(), len(answers.labels)),
    ]


def write(answers: Answers, directory: pathlib.Path) -> None:
    """Writes all answers to files: three tables and a plot."""
    from train.engine import confusion_plot  # imports matplotlib

    names = answers.class_names
    columns = ("", *names)  # the only name that no class can have
    confusion = (
        dict(zip(columns, (name, *row.tolist()), strict=True))
        for name, row in zip(names, answers.confusion, strict=True)
    )
    wrong = [dict(zip(WRONG, row, strict=True)) for row in answers.wrong()]
    tables.write_csv(directory / "classes.csv", answers.classes())
    tables.write_csv(directory / "confusion.csv", confusion, columns)
    tables.write_csv(directory / "wrong.csv", wrong, WRONG)
    confusion_plot.write(answers.confusion, names, directory / "confusion.png")


def _class_lines(rows):
    title = f"classes: {len(rows)}"
    if len(rows) > LONGEST:
        rows = [row for row in rows if row["images"]]
        rows.sort(key=lambda row: row["accuracy"])
        title += ", least accurate first"
    cells = [
        (
            f"{row['number']:>6}",
            f"{row['images']:>6}",
            f"{row['correct']:>7}",
            f"{row['accuracy']:>8.4f}" if row["images"] else "",
            row["class"],
        )
        for row in rows
    ]
    header = ("number", "images", "correct", "accuracy", "class")
    return ["", title, *_limited([header, *cells], LONGEST + 1)]


def _matrix_lines(answers):
    """Returns the confusion matrix, or nothing if the screen is too narrow for it."""
    names, counts = answers.class_names, answers.confusion
    digits = len(str(max(counts.max(), len(names) - 1)))

    def joined(*cells):
        return " ".join(f"{cell:>{digits}}" for cell in cells)

    header = joined("", *range(len(names)))
    space = min(WIDTH - len(header) - 2, NAME)
    if space < LEAST:
        return []
    lines = [header]
    for number, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        cells = joined(number, *(count or "." for count in row))
        lines.append(f"{cells}  {tables.shortened(name, space)}")
    title = "confusion matrix: a row for each true class, a column for each guess"
    return ["", title, *lines]


def _confusion_lines(confusions):
    lines = [
        (f"{count:>6}", f"{true} taken for {guess}")
        for count, true, guess in confusions
    ]
    title = f"confusions: {len(lines)}, most frequent first"
    return ["", title, *_limited(lines, LONGEST)]


def _wrong_lines(wrong, count):
    lines = [
        (
            f"{probability:>11.4f}",
            tables.shortened(true, NAME),
            tables.shortened(guess, NAME),
            str(image),
        )
        for probability, true, guess, image in wrong
    ]
    title = f"wrong: {len(wrong)} of {count} images"
    if not wrong:
        return ["", title]
    title += ", most confident first"
    return ["", title, *_limited([WRONG, *lines], LONGEST + 1)]


def _limited(rows, length):
    more = len(rows) - length
    lines = tables.aligned(rows[:length])
    return [*lines, f"and {more} more; --out=DIR writes all"] if more > 0 else lines
