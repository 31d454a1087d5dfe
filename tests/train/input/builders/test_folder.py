"""Image folders: what is used, what is left out, and what is refused."""

import io
import os
import pathlib
import shutil
import socket
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from image_files import write_images

from train import config
from train.cli import RunError
from train.input import dataset, order, pipeline


def load(directory):
    settings = config.Data(f"folder:{directory}", 8, mean=(0.5,), std=(0.25,))
    return dataset.load(settings)


def sizes(loaded):
    return {name: len(split) for name, split in loaded.splits.items()}


def encoded(kind):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """24 training and 8 test images of two classes."""
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", count=4)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        ".git/objects/pack",
        "__MACOSX/train/cat/._0.png",
        "train/.ipynb_checkpoints/0-checkpoint.png",
        "train/cat/._0.png",
        "train/cat/.ipynb_checkpoints/0-checkpoint.png",
        "train/cat/Thumbs.db",
        "train/.DS_Store",
        "test/dog/desktop.ini",
    ],
)
def test_hidden_files_and_directories_are_left_out(folder, path):
    expected = load(folder)
    assert expected.left_out == ""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(encoded("PNG"))
    loaded = load(folder)
    assert loaded.class_names == ("cat", "dog") and loaded.left_out == "1 hidden"
    assert loaded.fingerprint == expected.fingerprint


def test_images_are_recognized_by_content_and_other_files_counted(folder):
    for name, kind in {
        "a.JPG": "JPEG",
        "b.jfif": "JPEG",
        "without_extension": "PNG",
        "photo.webp": "PNG",
        "more/c.png": "PNG",
        "more/and/more/d": "JPEG",
        "photo.jpg": "WEBP",
        "e.webp": "WEBP",
        "f.bmp": "BMP",
        "g.gif": "GIF",
        "h.tiff": "TIFF",
    }.items():
        (folder / "train/cat" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "train/cat" / name).write_bytes(encoded(kind))
    for name in ("notes.txt", "more/list.txt", "README", "x.\x1b[31m"):
        (folder / "train/cat" / name).write_text("no image")
    loaded = load(folder)
    assert sizes(loaded) == {"train": 27, "validation": 3, "test": 8}
    assert sorted(loaded.left_out.split(", ")) == [
        "1 BMP",
        "1 GIF",
        "1 TIFF",
        "2 .txt",
        "2 WebP",
        "2 without a known extension",
    ]


def test_list_of_other_files_is_short(folder):
    for number in range(9):
        (folder / "train/cat" / f"x.{number}").touch()
        (folder / "train" / f"{number}.csv").touch()
    received = load(folder).left_out
    assert received.startswith("9 outside of classes, 1 .0, 1 .1, ")
    assert received.endswith(", 4 of other kinds")


def test_images_outside_the_splits_are_counted(folder):
    for name, kind in (("x.jpg", "JPEG"), ("y.png", "PNG"), ("z", "GIF")):
        (folder / name).write_bytes(encoded(kind))
    loaded = load(folder)
    assert loaded.left_out == "3 images beside train"
    assert sizes(loaded) == {"train": 22, "validation": 2, "test": 8}


def test_text_that_starts_like_an_image_is_not_an_image(folder):
    (folder / "train" / "cat" / "BMW.txt").write_text("BMW and others, cars and bikes")
    (folder / "train" / "cat" / "x.jpg").write_text("GIF8 is no header")
    with pytest.raises(RunError, match="1 damaged: .*x.jpg"):
        load(folder)
    (folder / "train" / "cat" / "x.jpg").unlink()
    assert load(folder).left_out == "1 .txt"


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_image_in_two_splits_is_reported(folder, link):
    getattr(folder / "test/cat/x.png", link)(folder / "train/cat/1.png")
    with pytest.raises(
        RunError, match="train/cat/1.png' and .*x.png' are the same file"
    ):
        load(folder)


def test_files_outside_the_splits_are_ignored(folder):
    (folder / "README.txt").touch()
    (folder / "train.zip").touch()
    assert sizes(load(folder)) == {"train": 22, "validation": 2, "test": 8}


def test_file_names_that_are_not_utf8_are_accepted(folder):
    old = os.fsencode(folder / "train/cat/0.jpg")
    os.rename(old, old.replace(b"0.jpg", b"K\xe4tzchen.jpg"))
    loaded = load(folder)
    assert sizes(loaded) == {"train": 22, "validation": 2, "test": 8}
    images, _ = next(iter(pipeline.training_batches(loaded, 0, 22, 0, 1)))
    assert images.shape == (22, 8, 8, 3)


def test_names_of_images_are_their_paths_in_the_order_of_evaluation(folder):
    split = load(folder).splits["test"]
    evaluation = split.evaluation(order.Share(0, 1, 4)).as_numpy_iterator()
    assert len(split.names()) == 8
    for path, (content, _, _) in zip(split.names(), evaluation, strict=True):
        assert path.startswith(f"{folder}/test/")
        assert pathlib.Path(path).read_bytes() == content


def test_links_to_images_and_to_directories_are_followed(folder):
    shutil.move(folder / "train" / "dog", folder / ".dogs")
    (folder / "train" / "dog").symlink_to(folder / ".dogs")
    (folder / "train" / "dog" / "more.png").symlink_to(folder / "train/cat/1.png")
    assert sizes(load(folder)) == {"train": 23, "validation": 2, "test": 8}


def test_order_depends_on_names_only(folder, tmp_path_factory):
    """It ignores the file system, so that splits are carved in the same way."""
    other = tmp_path_factory.mktemp("other")
    paths = [p for p in sorted(folder.rglob("*"), reverse=True) if p.is_file()]
    for path in paths:
        copy = other / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    orders = []
    for root in (folder, other):
        validation = load(root).splits["validation"].images.numpy()
        orders.append([os.path.relpath(os.fsdecode(p), root) for p in validation])
    assert orders[0] == orders[1]


def huge(path):
    """Writes a PNG of 20,000 x 20,000 white pixels, a file of 49 kB."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I4s", len(content), kind) + content + check.to_bytes(4)

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(20_000 * (1 + 20_000 // 8)))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    content = b"".join(chunk(*parts) for parts in chunks)
    (path / "train/cat/huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}/train/cat/x")


def write(name, content=b"", keep=True):
    def make(path):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
        if not keep:
            (path / name).unlink()

    return make


def link(name, target):
    return lambda path: (path / name).symlink_to(target)


def directory(name):
    return lambda path: (path / name).mkdir(parents=True)


def rename(old, new):
    return lambda path: os.rename(path / old, path / new)


IMAGE = encoded("PNG")
NO_FOLDER = "is not an image folder. Expected the directory train, .* Received: "


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (rename("test", "Test"), f"{NO_FOLDER}'Test'"),
        (rename("test", "tests"), f"{NO_FOLDER}'tests'"),
        (rename("test", "dev"), f"{NO_FOLDER}'dev'"),
        (rename("train", "Train"), f"{NO_FOLDER}'Train'"),
        (rename("train", ".train"), f"{NO_FOLDER}'test'"),
        (lambda path: os.rename(path / "train", path / "cats"), f"{NO_FOLDER}'cats'"),
        (directory("annotations"), f"{NO_FOLDER}'annotations'"),
        (link("val", "gone"), f"{NO_FOLDER}'val'"),
        (write("valid"), f"{NO_FOLDER}'valid'"),
        (
            lambda path: [write_images(path / name) for name in ("val", "valid")],
            f"{NO_FOLDER}'val', 'valid'",
        ),
        (link("val", "test"), "are the same directory"),
        (
            lambda path: [link(f"{s}/eel", "cat")(path) for s in ("train", "test")],
            "train/cat' and .*train/eel' are the same directory",
        ),
        (link("train/cat/loop", ".."), "are the same directory"),
        (directory("train/eel"), "different classes in test .*only in train: eel"),
        (
            write("test/eel/0.png", IMAGE),
            "different classes in test .*only in test: eel",
        ),
        (directory("val"), "different classes in val .*only in train: cat, dog"),
        (
            lambda path: [write(f"{s}/eel/a.txt")(path) for s in ("train", "test")],
            "train/eel' holds no images.*left out: 1 .txt",
        ),
        (link("train/eel", "gone"), "train/eel' is not a file.*a broken link"),
        (link("train/cat/x.jpg", "gone"), "x.jpg' is not a file.*a broken link"),
        (link("train/cat/x.jpg", "x.jpg"), "x.jpg' cannot be read.*symbolic links"),
        (link("train/cat/x.jpg", "/dev/zero"), "x.jpg' is not a file.*a device"),
        (
            lambda path: os.mkfifo(path / "train/cat/x.png"),
            "x.png' is not a file.*a pipe",
        ),
        (lambda path: os.mkfifo(path / "train/cat/x"), "cat/x' is not a file"),
        (listening, "cat/x' is not a file"),
        (directory("train/cat/x.jpeg"), "x.jpeg' is not a file.*a directory named"),
        (write("train/cat/x.png"), "cannot be read.*1 damaged: .*train/cat/x.png'"),
        (write("train/cat/x.jpg", b"<html>"), "cannot be read.*1 damaged: .*x.jpg'"),
        (write("train/cat/x", IMAGE[:60]), "cannot be read.*1 damaged: .*cat/x'"),
        (huge, "fewer than 178,956,970 pixels.*1 damaged: .*huge.png'"),
        (write(b"train/K\xe4tzchen/0.png".decode(errors="surrogateescape")), "K.udce4"),
    ],
)
def test_unexpected_content_is_reported(folder, make, words):
    make(folder)
    with pytest.raises(RunError, match=words):
        load(folder)


def test_images_without_classes_are_reported(tmp_path):
    write("train/0.png", IMAGE)(tmp_path)
    with pytest.raises(RunError, match="holds no classes.*1 outside of classes"):
        load(tmp_path)


def test_file_without_read_permission_is_reported(folder, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **options):
        if os.fspath(path).endswith("dog/1.png"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    words = "train/dog/1.png' cannot be read. Received: Permission denied"
    with pytest.raises(RunError, match=words):
        load(folder)


def test_directory_of_classes_is_not_an_image_folder(folder):
    with pytest.raises(RunError, match="Received: 'cat', 'dog'"):
        load(folder / "train")


def test_validation_images_do_not_depend_on_the_name_of_the_split(folder):
    write_images(folder / "val", count=4)
    expected = load(folder)
    for name in ("valid", "validation"):
        shutil.move(next(folder.glob("val*")), folder / name)
        assert load(folder).fingerprint == expected.fingerprint


def test_different_class_names_are_a_different_data_set(folder):
    before = load(folder).fingerprint
    for split in ("train", "test"):
        shutil.move(folder / split / "cat", folder / split / "bat")
    assert load(folder).fingerprint != before
