"""The judge: an image-text scorer that says which concept and which style an emoji picture shows.

Two small towers map pictures and texts to unit vectors; the score of a pair is their scaled product, as in CLIP
(Radford et al. 2021). It was trained on the training split only (training/judge.py), apart from every generator, so
it can measure generated and edited pictures. Its own accuracy on held-out pictures, its ceiling, is in its card.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((32, 1), (64, 2), (128, 2), (256, 0))  # width and blocks; each stage halves the side
WORD_WIDTH = 128
EMBEDDING = 256
SIZE = 64


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


class Towers(nn.Module):
    """Pictures (B, 3, 64, 64) in [-1, 1] and token ids (n, length) with mask to unit vectors of 256 numbers."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before, side, means = 3, SIZE, 0
        for width, blocks in STAGES:
            halved = nn.Conv2d(before, width, 4, stride=2, padding=1)
            self.stages.append(nn.Sequential(halved, *(Block(width) for _ in range(blocks))))
            before, side, means = width, side // 2, means + width
        # Emoji are centred: where a part lies says what it is. How it is drawn shows in the means of every stage.
        self.parts = nn.Sequential(
            nn.GroupNorm(8, before), nn.SiLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(before * side**2, EMBEDDING)
        )
        self.manner = nn.Sequential(nn.LayerNorm(means), nn.Dropout(0.1), nn.Linear(means, EMBEDDING))
        self.words = nn.Embedding(vocabulary, WORD_WIDTH)
        self.text_head = nn.Sequential(nn.Linear(WORD_WIDTH, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def embed_images(self, pixels: Tensor) -> Tensor:
        x, means = pixels, []
        for stage in self.stages:
            x = stage(x)
            means.append(F.silu(x.float()).mean((2, 3)))
        return F.normalize(self.parts(x).float() + self.manner(torch.cat(means, 1)), dim=-1)

    def embed_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        weight = mask.float()[:, :, None]
        mean = (self.words(ids) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.normalize(self.text_head(mean), dim=-1)

    def scores(self, images: Tensor, texts: Tensor) -> Tensor:
        return self.log_scale.exp() * images @ texts.T


def tokenise(tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask (n, length), without the start and end marks."""
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    length = max(1, *(len(row) for row in rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


@dataclass(frozen=True)
class Judge:
    """A loaded judge. ``concepts`` and ``styles`` are the names it chooses among."""

    towers: Towers
    tokenizer: Any
    concepts: tuple[str, ...]
    styles: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, tokenizer: Any) -> "Judge":
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text())
        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        towers = Towers(weights["words.weight"].shape[0])
        towers.load_state_dict(weights)
        return cls(towers.eval(), tokenizer, tuple(config["concepts"]), tuple(config["styles"]))

    @torch.no_grad()
    def scores(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Scores (B, n) of pictures (B, 3, H, W) in [0, 1] against texts; a softmax over a row gives probabilities."""
        if pixels.shape[-2:] != (SIZE, SIZE):
            pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        images = self.towers.embed_images(pixels.float() * 2 - 1)
        return self.towers.scores(images, self.towers.embed_tokens(*tokenise(self.tokenizer, texts)))

    def concept_probabilities(self, pixels: Tensor) -> Tensor:
        """(B, number of concepts), rows sum to 1, in the order of ``concepts``."""
        return self.scores(pixels, self.concepts).softmax(-1)

    def style_probabilities(self, pixels: Tensor) -> Tensor:
        """(B, number of styles), rows sum to 1, in the order of ``styles``."""
        return self.scores(pixels, [f"{style} style" for style in self.styles]).softmax(-1)

    def accuracy(self, pixels: Tensor, concepts: Sequence[str], styles: Sequence[str]) -> dict[str, float]:
        """How often the judge finds what is asked for.

        Args:
            pixels: pictures (B, 3, H, W) in [0, 1].
            concepts: the concept that each is to show, of ``concepts``.
            styles: the style of each.

        Returns:
            Shares of the pictures: "top1" whose concept is the judge's first, "top5" whose concept is among its first
            five, and "style" whose style is its first.  Without "style" where it does not know all of them.
        """
        concept = torch.tensor([self.concepts.index(name) for name in concepts])
        top = torch.cat([self.concept_probabilities(part) for part in torch.split(pixels, 64)]).topk(5).indices
        scores = {
            "top1": (top[:, 0] == concept).float().mean(),
            "top5": (top == concept[:, None]).any(1).float().mean(),
        }
        if set(styles) <= set(self.styles):
            style = torch.tensor([self.styles.index(name) for name in styles])
            first = torch.cat([self.style_probabilities(part) for part in torch.split(pixels, 64)]).argmax(1)
            scores["style"] = (first == style).float().mean()
        return {name: round(float(value), 4) for name, value in scores.items()}
