"""Stage 5: the judge, trained contrastively on the training split (renoise/judge.py has the towers).

    python -m training.judge --work WORK

Every picture is matched with its concept against all other concepts, with its style against all styles, and with its
whole caption against the captions of its batch. The auto-encoder and the generators never meet it.
"""

import argparse
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from renoise.judge import Judge, Towers, tokenise
from training.fused import fuse
from training.loop import Run, fast_precision, keep_memory, train
from training.pictures import Pictures, load_split, varied_caption
from training.text_to_emoji import load_tokenizer


def augmented(pictures: Pictures, index: Tensor, generator: torch.Generator) -> Tensor:
    """A little turned, scaled, shifted, blurred, recoloured and noised; never mirrored (directions matter)."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    n = len(index)
    images = pictures.small(index)
    angle, scale = (rand(n) - 0.5) * 0.3, 1 / (0.85 + 0.3 * rand(n))
    shift = (rand(n, 2) - 0.5) * 0.2
    cos, sin = scale * angle.cos(), scale * angle.sin()
    affine = torch.stack([torch.stack([cos, -sin, shift[:, 0]], -1), torch.stack([sin, cos, shift[:, 1]], -1)], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    images = F.grid_sample(images - 1, grid, align_corners=False) + 1  # outside is white
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = images.lerp(blurred, (2 * rand(n, 1, 1, 1) - 1).clamp(min=0))
    contrast, tint = 0.9 + 0.2 * rand(n, 1, 1, 1), (rand(n, 3, 1, 1) - 0.5) * 0.08
    noise = torch.randn(images.shape, generator=generator)
    images = images * contrast + tint + (rand(n, 1, 1, 1) - 0.5).clamp(min=0) * 0.2 * noise
    return images.clamp(-1, 1).to(memory_format=torch.channels_last)


def accuracy(judge: Judge, pictures: Pictures) -> dict[str, float]:
    """Top-1 and top-5 concept and top-1 style accuracy on real pictures."""
    concepts, styles = ([row[key] for row in pictures.rows] for key in ("label", "style"))
    return judge.accuracy((pictures.small() + 1) / 2, concepts, styles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    parser.add_argument("--images", type=int, default=500_000)
    args = parser.parse_args()
    keep_memory()
    torch.manual_seed(0)
    pictures, validation = load_split(args.work, "train"), load_split(args.work, "validation")
    tokenizer = load_tokenizer(args.work)
    concepts = tuple(sorted({row["label"] for row in pictures.rows}))
    styles = tuple(sorted({row["style"] for row in pictures.rows}))
    concept = torch.tensor([concepts.index(row["label"]) for row in pictures.rows])
    style = torch.tensor([styles.index(row["style"]) for row in pictures.rows])
    concept_ids, style_ids = tokenise(tokenizer, concepts), tokenise(tokenizer, [f"{name} style" for name in styles])
    towers = fuse(Towers(len(tokenizer))).to(memory_format=torch.channels_last)
    run = Run(args.work / "judge", args.images, batch=64, learning_rate=1.5e-3, weight_decay=0.05)

    def loss_of(step: int) -> dict[str, Tensor]:
        towers.train()
        generator, rng = torch.Generator().manual_seed(step), random.Random(step)
        torch.manual_seed(step)
        index = torch.randint(len(pictures), (run.batch,), generator=generator)
        pixels = augmented(pictures, index, generator)
        with fast_precision():
            images = towers.embed_images(pixels)
        captions = towers.embed_tokens(
            *tokenise(tokenizer, [varied_caption(pictures.rows[i], rng) for i in index.tolist()])
        )
        by_concept = F.cross_entropy(
            towers.scores(images, towers.embed_tokens(*concept_ids)), concept[index], label_smoothing=0.1
        )
        by_style = F.cross_entropy(
            towers.scores(images, towers.embed_tokens(*style_ids)), style[index], label_smoothing=0.1
        )
        by_caption = F.cross_entropy(towers.scores(images, captions), torch.arange(run.batch))
        return {
            "loss": by_concept + by_style + 0.2 * by_caption,
            "concept": by_concept,
            "style": by_style,
            "caption": by_caption,
        }

    def evaluate() -> dict[str, float]:
        return accuracy(Judge(towers.eval(), tokenizer, concepts, styles), validation)

    train(run, nn.ModuleDict({"towers": towers}), loss_of, evaluate)
    folder = run.folder / "model"
    folder.mkdir(exist_ok=True)
    save_file(
        {name: value.half().contiguous() for name, value in towers.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"concepts": concepts, "styles": styles}, ensure_ascii=False))
    held_out = accuracy(Judge.load(folder, tokenizer), validation)
    assert all(math.isfinite(value) for value in held_out.values())
    print("validation, from the saved file:", held_out)


if __name__ == "__main__":
    main()
