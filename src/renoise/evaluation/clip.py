"""CLIP similarity of a picture and a text (Hessel et al., "CLIPScore", EMNLP 2021), as torchmetrics defines it.

    similarity = max(100 cos(image vector, text vector), 0)

torchmetrics 1.9 computes it with transformers up to 4: in version 5 the features come in an output object.  So the
formula is here, and a test holds it against torchmetrics' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renoise.images import to_pil

__all__ = ["Clip"]


class Clip(nn.Module):
    """CLIP with its tokenizer and its way to prepare pictures.

    Attributes:
        network: a `CLIPModel` of transformers; published numbers are those of openai/clip-vit-large-patch14.
        tokenizer: its tokenizer.
        prepare: its image processor.
    """

    def __init__(self, network: Any, tokenizer: Any, prepare: Any) -> None:
        super().__init__()
        self.network, self.tokenizer, self.prepare = network, tokenizer, prepare

    @classmethod
    def load(cls, name: str) -> Clip:
        """CLIP by the name of a folder or on the hub.  Raises OSError if it is not to be had."""
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        network = CLIPModel.from_pretrained(name).eval().requires_grad_(False)
        return cls(network, CLIPTokenizer.from_pretrained(name), CLIPImageProcessorPil.from_pretrained(name))

    @torch.no_grad()
    def forward(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Similarities [batch], 0 to 100, of pictures [batch, 3, height, width] in [0, 1] with one text each."""
        device = next(self.network.parameters()).device
        shown = self.prepare(images=to_pil(pixels), return_tensors="pt")["pixel_values"].to(device)
        longest = self.network.config.text_config.max_position_embeddings
        written = self.tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=longest)
        images = _vectors(self.network.get_image_features(shown))
        words = _vectors(
            self.network.get_text_features(written["input_ids"].to(device), written["attention_mask"].to(device))
        )
        return (100 * (F.normalize(images, dim=-1) * F.normalize(words, dim=-1)).sum(-1)).clamp(min=0).cpu()


def _vectors(features: Any) -> Tensor:
    """The vectors, which transformers 5 hands over inside an output object."""
    found: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return found.float()
