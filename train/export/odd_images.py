"""Images as strangers send them: of every kind, huge, of one pixel, and damaged."""

import io
from collections.abc import Iterator

import numpy as np
import PIL.Image
import tensorflow as tf

GREY, ORANGE = (128, 128, 128), (208, 112, 48)
HUGE = 8000  # pixels, height and width: 64 million of them
LONG = 20_000
FINE = {"quality": 100, "subsampling": 0}


def plain(channels: int) -> bytes:
    """A PNG of blocks of 16 colours."""
    return _encode(_picture(channels), "PNG")


def pictures(channels: int) -> Iterator[tuple[str, bytes, bytes, bool]]:
    """(name, image, PNG of the same picture, whether the image is lossy).

    Args:
        channels: that the model takes.
    """
    # a grey image where colours become one channel: JPEG and PNG weigh them otherwise
    colour = GREY if channels == 1 else ORANGE
    picture, flat = _picture(channels), _flat(40, 40, colour)
    grey = picture.convert("L")
    png, grey_png, flat_png = (_encode(i, "PNG") for i in (picture, grey, flat))
    deep = np.asarray(picture.convert("RGB")).astype(np.uint16) * 257
    few_colours = picture.convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=32)
    yield "PNG", png, png, False
    yield "JPEG", _encode(flat, "JPEG", **FINE), flat_png, True
    yield "grey PNG", grey_png, _encode(grey.convert("RGB"), "PNG"), False
    flat_grey = _flat(40, 40, GREY)
    grey_jpeg = _encode(flat_grey.convert("L"), "JPEG", **FINE)
    yield "grey JPEG", grey_jpeg, _encode(flat_grey, "PNG"), True
    yield "CMYK JPEG", _encode(flat.convert("CMYK"), "JPEG", **FINE), flat_png, True
    yield "16-bit PNG", tf.io.encode_png(deep).numpy(), png, False
    yield "PNG with a palette", _encode(few_colours, "PNG"), png, False
    yield "PNG with alpha", _encode(picture.convert("RGBA"), "PNG"), png, False
    yield "BMP", _encode(picture.convert("RGB"), "BMP"), png, False
    frames = {"save_all": True, "append_images": [few_colours.rotate(90)]}
    yield "animated GIF (the first)", _encode(few_colours, "GIF", **frames), png, False
    yield "one pixel", _encode(_flat(1, 1, colour), "PNG"), flat_png, False
    yield f"{HUGE}x{HUGE}", _encode(_flat(HUGE, HUGE, colour), "PNG"), flat_png, False
    yield f"{LONG}x1", _encode(_flat(LONG, 1, colour), "PNG"), flat_png, False
    yield f"1x{LONG}", _encode(_flat(1, LONG, colour), "PNG"), flat_png, False


def damaged(channels: int) -> Iterator[tuple[str, bytes]]:
    """(name, bytes that are no image)."""
    png, jpeg = (_encode(_picture(channels), kind) for kind in ("PNG", "JPEG"))
    yield "no bytes", b""
    yield "text", b"no image" * 1000
    yield "half a PNG", png[: len(png) // 2]
    yield "half a JPEG", jpeg[: len(jpeg) // 2]
    yield "a PNG's signature", png[:8]
    yield "a damaged PNG", png[:40] + bytes(20) + png[60:]


def _picture(channels):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, 4, 1 if channels == 1 else 3), dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((12, 16, 1), np.uint8))
    return PIL.Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _flat(height, width, colour):
    return PIL.Image.new("RGB", (width, height), colour)


def _encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
