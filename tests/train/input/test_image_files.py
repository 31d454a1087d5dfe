"""Arguments that name image files."""

import pathlib

import pytest
from image_files import write_images

from train.cli import RunError
from train.input import image_files


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two images each in photos/b and photos/a/inner, found from `tmp_path`."""
    write_images(tmp_path / "photos", count=2, classes=("b", "a/inner"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


INNER = ["photos/a/inner/0.jpg", "photos/a/inner/1.png"]
B = ["photos/b/0.jpg", "photos/b/1.png"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["photos"], INNER + B),
        (["photos/b/1.png", "photos/a"], [B[1], *INNER]),
        (["photos/*"], INNER + B),
        (["photos/?/*.png"], [B[1]]),
        (["photos/**/*.jpg"], [INNER[0], B[0]]),
        (["photos/**"], INNER + B),
        (["photos", "photos/b/0.jpg"], [*INNER, *B, B[0]]),
    ],
)
@pytest.mark.usefixtures("photos")
def test_arguments_are_expanded_in_order(arguments, expected):
    found, left_out = image_files.find(arguments)
    assert [str(pathlib.Path(path)) for path in found] == expected
    assert left_out == ""


def test_pattern_for_everything_is_the_directory(photos):
    (photos / "b" / "empty").mkdir()
    (photos / "b" / "notes.txt").touch()
    assert image_files.find([f"{photos}/**"])[1] == "1 .txt"
    found = [image_files.find([str(photos / end)])[0] for end in ("**", "")]
    assert [*map(pathlib.Path, found[0])] == [*map(pathlib.Path, found[1])]


def test_file_whose_name_looks_like_a_pattern_is_that_file(photos):
    name = photos / "b" / "[01].png"
    (photos / "b" / "1.png").rename(name)
    assert image_files.find([str(name)])[0] == [str(name)]


def test_home_directory_is_expanded(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos))
    assert image_files.find(["~/b/*.jpg"])[0] == [str(photos / "b" / "0.jpg")]


def test_other_and_hidden_files_in_directories_are_counted(photos):
    (photos / ".cache").mkdir()
    (photos / "b" / "Thumbs.db").touch()
    (photos / "notes.txt").touch()
    (photos / "a" / "notes.txt").touch()
    found, left_out = image_files.find(["photos/a", "photos"])
    assert len(found) == 6
    assert sorted(left_out.split(", ")) == ["2 hidden", "3 .txt"]


def test_unusable_arguments_are_errors(photos):
    (photos / "c").mkdir()
    (photos / "c" / "x.txt").touch()
    for argument, words in (
        ("photos/none.png", "Cannot read photos/none.png: .*No such file"),
        ("photos/*.gif", r"Cannot read photos/\*.gif: .*No such file"),
        ("photos/c", "holds no images.*left out: 1 .txt"),
        ("/dev/null", "to be a regular file. Received: a pipe or a device"),
    ):
        with pytest.raises(RunError, match=words):
            image_files.find(["photos/b", argument])
    (photos / "b" / "x.jpg").write_text("no image")
    with pytest.raises(RunError, match="photos has images.*1 damaged: 'photos/b/x.jpg"):
        image_files.find(["photos"])
