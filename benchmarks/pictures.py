"""The held-out pictures that benchmarks and tests run on, at 64 pixels, with their captions.

    python -m benchmarks.pictures --work WORK

cuts them again from what training/data.py rendered: one lossless sheet and one JSON list per split, and 512 prompts
of the training split, in benchmarks/pictures. ``validation`` is for tuning, ``test`` for reporting, ``artist`` is an
artist no model ever saw.
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FOLDER = Path(__file__).parent / "pictures"
SPLITS = ("validation", "test", "artist")
SIDE, COLUMNS = 64, 24
PROMPTS = 512


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


def main() -> None:
    from training.pictures import load_rows, load_split

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for split in SPLITS:
        pictures = load_split(args.work, split)
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
        tiles = ((pictures.small(order) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        blank = np.full((-len(tiles) % COLUMNS, SIDE, SIDE, 3), 255, np.uint8)
        sheet = (
            np.concatenate([tiles, blank])
            .reshape(-1, COLUMNS, SIDE, SIDE, 3)
            .transpose(0, 2, 1, 3, 4)
            .reshape(-1, COLUMNS * SIDE, 3)
        )
        Image.fromarray(sheet).save(FOLDER / f"{split}.webp", lossless=True, quality=100, method=6)
        rows = [
            {"concept": pictures.rows[i]["label"], "style": pictures.rows[i]["style"], "pack": pictures.rows[i]["pack"]}
            for i in order.tolist()
        ]
        (FOLDER / f"{split}.json").write_text(json.dumps(rows, ensure_ascii=False, indent=0) + "\n")
        print(split, len(rows), f"{(FOLDER / f'{split}.webp').stat().st_size / 1e6:.2f} MB")
    rows = load_rows(args.work, "train")
    chosen = random.Random(0).sample(rows, PROMPTS)
    prompts = [{"concept": row["label"], "style": row["style"]} for row in chosen]
    (FOLDER / "training-prompts.json").write_text(json.dumps(prompts, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
