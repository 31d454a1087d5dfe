"""The answers to image files, as lines and as files."""

import csv
import json

from train.export import predictions

ANSWERS = [
    ("a.png", [("cat", 0.75), ("a fish", 0.25)]),
    ("photos/猫.jpg", [("a fish", 0.5), ("cat", 0.5)]),
]


def test_columns_are_aligned():
    assert predictions.lines(ANSWERS) == [
        "a.png          cat     0.7500  a fish  0.2500",
        "photos/猫.jpg  a fish  0.5000  cat     0.5000",
    ]
    assert predictions.lines([]) == []


def test_files_hold_names_and_scores_of_all_images(tmp_path):
    predictions.write_csv(tmp_path / "a.csv", ANSWERS)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["file", "class", "score", "class 2", "score 2"]
    assert list(first.values()) == ["a.png", "cat", "0.75", "a fish", "0.25"]
    assert second["file"] == "photos/猫.jpg" and second["class 2"] == "cat"
    predictions.write_json(tmp_path / "a.json", ANSWERS)
    assert json.loads((tmp_path / "a.json").read_text()) == [
        {"file": image, "classes": [{"class": n, "score": s} for n, s in guesses]}
        for image, guesses in ANSWERS
    ]
