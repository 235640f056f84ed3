"""The held-out pictures on which benchmarks and tests run, at 64 x 64 pixels, with their captions.

The folder benchmarks/pictures holds one lossless sheet and one JSON list per split, and 512 prompts of the training
split. training/held_out.py made them. The splits are ``validation`` for tuning, ``test`` for reported results, and
``artist``, the pictures of an artist on whose work no model was trained.
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
    """Pictures with their concepts and styles.

    Attributes:
        pixels: (N, 3, 64, 64) in [0, 1].
        concepts: what each picture shows, as named in its caption.
        styles: the style of each picture, as named in its caption.
    """

    pixels: Tensor
    concepts: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.concepts)

    @property
    def captions(self) -> list[str]:
        """The caption of each picture, which is also its prompt."""
        return [f"{concept}, {style} style" for concept, style in zip(self.concepts, self.styles, strict=True)]

    def first(self, count: int) -> "PictureSet":
        """The first ``count`` pictures."""
        return self.part(0, count)

    def part(self, start: int, stop: int) -> "PictureSet":
        """The pictures from ``start`` to before ``stop``."""
        return PictureSet(self.pixels[start:stop], self.concepts[start:stop], self.styles[start:stop])


def load(split: str) -> PictureSet:
    """One of ``SPLITS``. The pictures are in a fixed random order, so that the first n are a fair sample."""
    rows = json.loads((FOLDER / f"{split}.json").read_text())
    sheet = np.asarray(Image.open(FOLDER / f"{split}.webp").convert("RGB"))
    tiles = sheet.reshape(-1, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)
    pixels = torch.from_numpy(tiles[: len(rows)].copy()).float() / 255
    return PictureSet(pixels, [row["concept"] for row in rows], [row["style"] for row in rows])
