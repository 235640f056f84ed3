"""The held-out pictures on which benchmarks and tests run, with their captions.

The folder benchmarks/pictures holds one lossless sheet of pictures of 128 x 128 pixels and one JSON list per split, and
512 prompts of the training split. training/held_out.py made them. The splits are ``validation`` for tuning, ``test``
for reported results, and ``artist``, the pictures of an artist on whose work no model was trained.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from renoise import models
from renoise.pipelines.adapter import Adapter

FOLDER = Path(__file__).parent / "pictures"
SPLITS = ("validation", "test", "artist")
LARGEST, COLUMNS = 128, 24


@dataclass(frozen=True)
class PictureSet:
    """Pictures with their concepts and styles.

    Attributes:
        pixels: (N, 3, side, side) in [0, 1].
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


@cache
def side_of_models() -> int:
    """Side in pixels of the pictures that the embedded models draw."""
    height, width = Adapter(models.load("emoji")).size(None)
    assert height == width
    return height


def load(split: str, side: int | None = None) -> PictureSet:
    """One of ``SPLITS``. The pictures are in a fixed random order, so that the first n are a fair sample.

    Args:
        split: its name.
        side: of the pictures in pixels, a divisor of 128; by default that of the embedded models.
    """
    rows = json.loads((FOLDER / f"{split}.json").read_text())
    sheet = np.asarray(Image.open(FOLDER / f"{split}.webp").convert("RGB"))
    tiles = sheet.reshape(-1, LARGEST, COLUMNS, LARGEST, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, LARGEST, LARGEST)
    large = torch.from_numpy(tiles[: len(rows)].copy())
    pixels = reduced(large, side_of_models() if side is None else side).float() / 255
    return PictureSet(pixels, [row["concept"] for row in rows], [row["style"] for row in rows])


def reduced(large: Tensor, side: int) -> Tensor:
    """Pictures (N, 3, side, side) of bytes, each pixel the rounded mean of those that it covers.

    Where a mean lies half way between two bytes, float32 decides: the order of these operations is that of
    ``training.pictures.Pictures.sized``, by which all measured pictures of 64 pixels were made.

    Args:
        large: bytes (N, 3, height, width).
        side: of the result, a divisor of height and width.

    Raises:
        ValueError: the side is no divisor.
    """
    factor = large.shape[-1] // side
    if factor * side != large.shape[-1]:
        raise ValueError(f"side={side}: these pictures can be had with sides that divide {large.shape[-1]}, such as 64")
    means = F.avg_pool2d(large.float(), factor) / 127.5 - 1
    return ((means + 1) * 127.5).round().to(torch.uint8)
