"""The judge: an image-text scorer that says which concept and which style an emoji image shows.

Two small networks (towers) map images and texts to unit vectors.  The score of a pair is their scaled dot product, as
in CLIP (Radford et al., ICML 2021).  The judge was trained on the training split only (training/judge.py) and shares no
weights with a generator, so it can measure generated and edited images.  Its accuracy on real held-out images, which is
the ceiling for generated ones, is in its model card.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((32, 1), (64, 2), (128, 2), (256, 0))  # channels and blocks of each stage, which halves the side
WORD_WIDTH = 128
EMBEDDING = 256
SIZE = 64  # side of the images that it was trained on, and sees


class Block(nn.Module):
    """A residual block of two convolutions."""

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
    """The two networks, for images and for texts; both return unit vectors of 256 numbers."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before, side, means = 3, SIZE, 0
        for width, blocks in STAGES:
            halved = nn.Conv2d(before, width, 4, stride=2, padding=1)
            self.stages.append(nn.Sequential(halved, *(Block(width) for _ in range(blocks))))
            before, side, means = width, side // 2, means + width
        # Emoji are centred, so the position of a part tells the concept. The means of every stage tell the style.
        self.parts = nn.Sequential(
            nn.GroupNorm(8, before), nn.SiLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(before * side**2, EMBEDDING)
        )
        self.manner = nn.Sequential(nn.LayerNorm(means), nn.Dropout(0.1), nn.Linear(means, EMBEDDING))
        self.words = nn.Embedding(vocabulary, WORD_WIDTH)
        self.text_head = nn.Sequential(nn.Linear(WORD_WIDTH, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Unit vectors (B, 256) of images (B, 3, 64, 64) in [-1, 1]."""
        x, means = pixels, []
        for stage in self.stages:
            x = stage(x)
            means.append(F.silu(x.float()).mean((2, 3)))
        return F.normalize(self.parts(x).float() + self.manner(torch.cat(means, 1)), dim=-1)

    def embed_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (n, 256) of texts, given as token ids (n, length) and their mask."""
        weight = mask.float()[:, :, None]
        mean = (self.words(ids) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.normalize(self.text_head(mean), dim=-1)

    def scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """Scores (B, n) of image vectors against text vectors."""
        return self.log_scale.exp() * images @ texts.T


def tokenise(tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids (n, length) without start and end tokens, and the mask, 1 for tokens and 0 for padding."""
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    length = max(1, *(len(row) for row in rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


@dataclass(frozen=True)
class Judge:
    """A loaded judge.

    Attributes:
        towers: its networks.
        tokenizer: of its texts, that of the embedded models.
        concepts: the names of the concepts that it chooses from.
        styles: the names of the styles that it chooses from.
    """

    towers: Towers
    tokenizer: Any
    concepts: tuple[str, ...]
    styles: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, tokenizer: Any) -> "Judge":
        """Load a judge from a folder with config.json and model.safetensors."""
        from safetensors.torch import load_file

        config = json.loads((folder / "config.json").read_text())
        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        towers = Towers(weights["words.weight"].shape[0])
        towers.load_state_dict(weights)
        return cls(towers.eval(), tokenizer, tuple(config["concepts"]), tuple(config["styles"]))

    @torch.no_grad()
    def scores(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Scores (B, n) of images (B, 3, H, W) in [0, 1] against n texts.

        A softmax over a row gives the probability of each text.  Images of another size than 64 x 64 are brought to
        it first: each pixel becomes the mean of those that it covers, as in the images that the judge was trained on.
        """
        if pixels.shape[-2:] != (SIZE, SIZE):
            pixels = F.interpolate(pixels, (SIZE, SIZE), mode="area")
        images = self.towers.embed_images(pixels.float() * 2 - 1)
        return self.towers.scores(images, self.towers.embed_tokens(*tokenise(self.tokenizer, texts)))

    def concept_probabilities(self, pixels: Tensor) -> Tensor:
        """Probabilities (B, number of concepts) in the order of ``concepts``, for images (B, 3, H, W) in [0, 1]."""
        return self.scores(pixels, self.concepts).softmax(-1)

    def style_probabilities(self, pixels: Tensor) -> Tensor:
        """Probabilities (B, number of styles) in the order of ``styles``, for images (B, 3, H, W) in [0, 1]."""
        return self.scores(pixels, [f"{style} style" for style in self.styles]).softmax(-1)

    def captions(self, pixels: Tensor) -> list[str]:
        """The most likely caption of images (B, 3, H, W) in [0, 1], in the words that the embedded models know."""
        concepts, styles = self.concept_probabilities(pixels).argmax(1), self.style_probabilities(pixels).argmax(1)
        return [
            f"{self.concepts[concept]}, {self.styles[style]} style"
            for concept, style in zip(concepts.tolist(), styles.tolist(), strict=True)
        ]

    def accuracy(self, pixels: Tensor, concepts: Sequence[str], styles: Sequence[str]) -> dict[str, float]:
        """How often the judge recognises the concept and the style that images should show.

        Args:
            pixels: images (B, 3, H, W) in [0, 1].
            concepts: the concept of each image, one of the judge's ``concepts``.
            styles: the style of each image.

        Returns:
            Shares of the images: "top1", the judge's first choice is the concept; "top5", the concept is among its
            first five; "style", its first choice is the style.  There is no "style" if the judge does not know all of
            the styles.

        Raises:
            ValueError: a concept that the judge does not know.
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
