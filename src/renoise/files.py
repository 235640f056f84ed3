"""Files that are written wholly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write"]


def write(path: Path, data: bytes) -> None:
    """Writes a file and its folders under a temporary name first, so that nobody ever sees half of it.

    Raises:
        OSError: a place that cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
