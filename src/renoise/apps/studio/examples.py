"""Pictures to begin with: held-out emoji that no embedded model ever saw, with their captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

__all__ = ["STATIC", "Example", "examples"]

STATIC = Path(__file__).parent / "static"
"""The files of the page."""


@dataclass(frozen=True)
class Example:
    """A square picture in RGB, and what it shows."""

    picture: Image.Image
    caption: str


@cache
def examples() -> tuple[Example, ...]:
    """All examples, cut from one lossless sheet."""
    captions = json.loads((STATIC / "examples.json").read_text())
    with Image.open(STATIC / "examples.webp") as file:
        sheet = file.convert("RGB")
    side = sheet.height
    return tuple(
        Example(sheet.crop((side * index, 0, side * (index + 1), side)), caption)
        for index, caption in enumerate(captions)
    )
