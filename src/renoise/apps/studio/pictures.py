"""Pictures as they come from a browser: opened within limits, and kept as PNG."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from renoise import images
from renoise.apps.studio.choices import Refused

_DAMAGED = "This picture is damaged and could not be read to its end. Save or download it again."

__all__ = ["Limits", "Source", "decoded", "encoded", "mask_of", "source_of"]


@dataclass(frozen=True)
class Limits:
    """What the studio takes and keeps.

    Attributes:
        megabytes: of one upload.
        megapixels: of one picture.
        inversions: kept for each browser tab; the oldest goes first.
        results: edits kept for each browser tab, likewise.
        sessions: browser tabs at once; the one that was idle longest goes first.
        idle_minutes: after which an idle tab's work is let go.
    """

    megabytes: float = 32.0
    megapixels: float = 25.0
    inversions: int = 4
    results: int = 60
    sessions: int = 32
    idle_minutes: float = 120.0


@dataclass(frozen=True, eq=False)
class Source:
    """A picture that was handed over: upright RGB of 8 bits, as a PNG.

    Attributes:
        png: the file.
        size: (width, height).
        caption: what it shows, where that is known.
    """

    png: bytes
    size: tuple[int, int]
    caption: str = ""


def encoded(picture: Image.Image) -> bytes:
    """A picture as a PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def decoded(png: bytes) -> Image.Image:
    """The picture of a PNG made by `encoded`, in RGB."""
    return images.open_image(Image.open(io.BytesIO(png)))


def source_of(data: bytes, limits: Limits) -> Source:
    """A picture from the bytes of a file of any kind that PIL reads.

    Raises:
        Refused: no picture, a damaged one, or one with too many pixels.
    """
    try:
        picture = images.open_image(_opened(data, limits))
    except images.ImageError as error:
        raise Refused(f"{_DAMAGED} ({str(error).removeprefix('the PIL image ')})") from None
    return Source(encoded(picture), picture.size)


def mask_of(data: bytes, limits: Limits) -> bytes | None:
    """A painted mask as a PNG in grey, white where to edit; None where nothing is painted.

    Raises:
        Refused: as for `source_of`.
    """
    if not data:
        return None
    try:
        mask = _opened(data, limits).convert("L")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise Refused(_DAMAGED) from error
    return encoded(mask) if mask.getextrema()[1] else None  # type: ignore[operator]


def _opened(data: bytes, limits: Limits) -> Image.Image:
    """A picture whose size was looked at before it is decoded."""
    if not data:
        raise Refused("This file is empty. Choose a picture, such as a PNG or a JPEG.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Refused(
            "This file is no picture that can be read. Choose a PNG, JPEG, WebP or another common kind."
        ) from None
    width, height = picture.size
    if width * height > limits.megapixels * 1e6:
        raise Refused(
            f"This picture has {width * height / 1e6:.0f} megapixels ({width} × {height}), and this studio takes up to "
            f"{limits.megapixels:g}. Scale it down first; the model works at far fewer anyway."
        )
    return picture
