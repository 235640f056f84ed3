"""What the tests of the studio share: pictures as files, and (in a process of its own) the studio itself."""

from __future__ import annotations

import io

from PIL import Image


def png(width: int, height: int, shade: int = 128) -> bytes:
    """A picture of one shade, as a file."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()
