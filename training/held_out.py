"""The held-out pictures for benchmarks and tests, cut from what stage 1 rendered, and prompts of the training split.

    python -m training.held_out --work WORK

Writes into benchmarks/pictures one lossless sheet of pictures of 128 x 128 pixels and one JSON list per split, and 512
prompts.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.pictures import load_rows, load_split

FOLDER = Path(__file__).parents[1] / "benchmarks/pictures"
SPLITS = ("validation", "test", "artist")
SIDE, COLUMNS = 128, 24
PROMPTS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for split in SPLITS:
        pictures = load_split(args.work, split)
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
        tiles = pictures.large[order].permute(0, 2, 3, 1).numpy()
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
