"""Finds image files: in a directory and below, and by patterns; without TensorFlow."""

import collections
import glob
import os
import re
from collections.abc import Iterable, Iterator

from train import paths
from train.cli import RunError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
USED = ("JPEG", "PNG")  # what the signature `image_bytes` of an export accepts
KINDS = re.compile(  # by the first bytes of a file
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<BMP>BM....\0{4})|(?P<WebP>RIFF....WEBP)|(?P<TIFF>II\*\0|MM\0\*)"
    rb"|(?P<HEIF>....ftyp(heic|heix|mif1|msf1|avif|avis))",
    re.DOTALL,
)
OF_SYSTEMS = (  # hidden, though their names do not start with a dot
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "lost+found",
    "system volume information",
    "thumbs.db",
)
PIXELS = 2**29 // 3  # half a GiB in colour; Pillow's limit


def find(arguments: list[str]) -> tuple[list[str], str]:
    """Returns the image files that arguments name, and what was left out.

    An argument is a file, a directory, which stands for the images in it and below, or
    a pattern of such paths (`*`, `?`, `[...]`, `**`).

    Args:
        arguments: Paths and patterns; `~` is the home directory.

    Returns:
        The paths, sorted within each argument, and the numbers of unused files in
        directories by kind, as text; empty if there are none.

    Raises:
        RunError: If a file cannot be read, or a directory has no images or damaged
            ones.
    """
    found, left_out = [], collections.Counter()
    for argument in arguments:
        path = os.path.expanduser(argument)
        matches = [] if os.path.lexists(path) else glob.glob(path, recursive=True)
        directories = ()  # `**` matches directories and also what is in them
        for match in sorted(matches) or [path]:
            if match.startswith(directories):
                continue
            if os.path.isdir(match):
                directories += (os.path.join(match, ""),)
                finder = Finder()
                found += finder.all_images(match)
                left_out += finder.left_out
            else:
                _require_readable(match)
                found.append(match)
    return found, describe(left_out)


class Finder:
    """Finds the JPEG and PNG files in directories, and reads each directory once.

    Images are recognized by their first bytes, not by their names. Hidden files, and
    files of other kinds, are left out.

    Attributes:
        left_out: Numbers of unused files by kind.
        damaged: Paths of files that are images by their names only.
    """

    def __init__(self):
        self.left_out, self.damaged = collections.Counter(), []
        self._seen = {}

    def all_images(self, directory: str) -> list[str]:
        """Returns the sorted paths of the images in a directory and below it.

        Raises:
            RunError: If there is none, or something is not as expected.
        """
        images = sorted(path for path, _ in self.images(directory))
        if self.damaged:
            raise unreadable(directory, self.damaged)
        if not images:
            raise self.no_images(directory)
        return images

    def images(self, directory: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yields the path and status of each image in a directory and below it.

        Raises:
            RunError: If something is neither a file nor a directory, or a directory has
                been read before.
        """
        waiting = [directory]
        while waiting:
            for entry in self.entries(waiting.pop()):
                if entry.is_dir() and _suffix(entry) not in SUFFIXES:
                    waiting.append(entry.path)
                elif status := self._image(entry):
                    yield entry.path, status

    def entries(self, directory: str) -> Iterator[os.DirEntry]:
        """Yields what is in a directory and not hidden, sorted by name.

        Raises:
            RunError: If it has been read before.
        """
        status = os.stat(directory)
        key = status.st_dev, status.st_ino
        if key in self._seen:
            raise RunError(
                f"{self._seen[key]!r} and {directory!r} are the same directory. "
                "Expected each image only once. Received: a link."
            )
        self._seen[key] = directory
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name.lower() in OF_SYSTEMS:
                    self.left_out["hidden"] += 1
                else:
                    yield entry

    def no_images(self, directory: str) -> RunError:
        """Returns the error of a directory without images."""
        left_out = describe(self.left_out)
        return RunError(
            f"{directory!r} holds no images. Expected JPEG or PNG files. "
            f"Received: none{left_out and f'; left out: {left_out}'}."
        )

    def _image(self, entry):
        """Returns the status of an image, or `None` if the file is not an image."""
        require_file(entry)
        begin, status = _begin(entry)
        known = KINDS.match(begin)
        if known and known.lastgroup in USED:
            return status
        suffix = _suffix(entry)
        if not known and suffix in SUFFIXES:
            self.damaged.append(entry.path)
        elif known:
            self.left_out[known.lastgroup] += 1
        elif re.fullmatch(r"\.[a-z0-9_]{1,8}", suffix):
            self.left_out[suffix] += 1
        else:
            self.left_out["without a known extension"] += 1
        return None


def describe(left_out: collections.Counter) -> str:
    """Returns numbers by kind as text, the most common kinds first."""
    common = left_out.most_common(6)
    rest = left_out.total() - sum(count for _, count in common)
    if rest:
        common.append(("of other kinds", rest))
    return ", ".join(f"{count} {kind}" for kind, count in common)


def is_image(entry: os.DirEntry) -> bool:
    """Whether a file begins like an image, of any known kind."""
    return bool(KINDS.match(_begin(entry)[0]))


def require_file(entry: os.DirEntry) -> None:
    """Checks that something in a directory is a file or a link to one.

    Raises:
        RunError: If it is not.
    """
    if not entry.is_file():
        if entry.is_dir():
            received = "a directory named like an image"
        elif os.path.exists(entry.path):
            received = "a pipe, a socket or a device"
        else:
            received = "a broken link"
        raise RunError(
            f"{entry.path!r} is not a file. Expected image files or links to them. "
            f"Received: {received}."
        )


def unreadable(directory: str, damaged: Iterable[str]) -> RunError:
    """Returns the error of a directory with damaged images."""
    damaged = sorted(damaged)
    return RunError(
        f"{directory} has images that cannot be read. Expected JPEG or PNG files with "
        f"fewer than {PIXELS:,} pixels. Received: {len(damaged)} damaged: "
        f"{', '.join(map(repr, damaged[:5]))}."
    )


def _require_readable(path):
    paths.require_regular(path)
    try:
        open(path, "rb").close()
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error}.") from error


def _begin(entry) -> tuple[bytes, os.stat_result]:
    """Reads the first bytes of a file, without blocking if it has become a pipe."""
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 16), os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _suffix(entry):
    return os.path.splitext(entry.name)[1].lower()
