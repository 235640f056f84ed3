"""The rendered pictures of stage 1 as tensors: splits, smaller versions, captions."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """One split. ``large`` is (N, 3, 128, 128) uint8; ``rows`` are the manifest's rows of the same order."""

    large: Tensor
    rows: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    def sized(self, side: int, index: Tensor | slice = slice(None)) -> Tensor:
        """(n, 3, side, side) float32 in [-1, 1], each pixel the mean of those that it covers at 128."""
        return F.avg_pool2d(self.large[index].float(), self.large.shape[-1] // side) / 127.5 - 1

    def small(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The pictures at 64 pixels, as the judge sees them."""
        return self.sized(64, index)


def load_rows(work: Path, split: str) -> list[dict[str, Any]]:
    return [row for row in json.loads((work / "data/manifest.json").read_text()) if row["split"] == split]


def load_split(work: Path, split: str) -> Pictures:
    rows = json.loads((work / "data/manifest.json").read_text())
    chosen = [i for i, row in enumerate(rows) if row["split"] == split]
    images = np.load(work / "data/images.npy", mmap_mode="r")[chosen]
    return Pictures(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), [rows[i] for i in chosen])


def caption(row: dict[str, Any]) -> str:
    return f"{row['label']}, {row['style']} style"


def varied_caption(row: dict[str, Any], rng: random.Random) -> str:
    """The caption of one training step: at times tags for the name, at times no style, at times nothing (guidance)."""
    draw = rng.random()
    if draw < 0.1:
        return ""
    if draw < 0.2 and row["tags"]:
        subject = " ".join(rng.sample(row["tags"], min(len(row["tags"]), rng.randint(1, 3))))
    else:
        subject = row["label"]
    return subject if rng.random() < 0.1 else f"{subject}, {row['style']} style"
