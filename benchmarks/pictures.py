"""The held-out pictures that benchmarks and tests run on, at 64 pixels, with their captions.

One lossless sheet and one JSON list per split, and 512 prompts of the training split, lie in benchmarks/pictures;
training/held_out.py made them. ``validation`` is for tuning, ``test`` for reporting, ``artist`` is an artist no model
ever saw.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FOLDER = Path(__file__).parent / "pictures"
SPLITS = ("validation", "test", "artist")
SIDE, COLUMNS = 64, 24


@dataclass(frozen=True)
class PictureSet:
    """Pictures (N, 3, 64, 64) in [0, 1] with their concept and style, as named in captions."""

    pixels: Tensor
    concepts: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.concepts)

    @property
    def captions(self) -> list[str]:
        return [f"{concept}, {style} style" for concept, style in zip(self.concepts, self.styles, strict=True)]

    def first(self, count: int) -> "PictureSet":
        return self.part(0, count)

    def part(self, start: int, stop: int) -> "PictureSet":
        return PictureSet(self.pixels[start:stop], self.concepts[start:stop], self.styles[start:stop])


def load(split: str) -> PictureSet:
    """One split, in a fixed shuffled order, so that the first n are a fair sample."""
    rows = json.loads((FOLDER / f"{split}.json").read_text())
    sheet = np.asarray(Image.open(FOLDER / f"{split}.webp").convert("RGB"))
    tiles = sheet.reshape(-1, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)
    pixels = torch.from_numpy(tiles[: len(rows)].copy()).float() / 255
    return PictureSet(pixels, [row["concept"] for row in rows], [row["style"] for row in rows])
