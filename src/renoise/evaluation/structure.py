"""Structure distance (Tumanyan et al., "Splicing ViT Features", CVPR 2022), as PIE-Bench computes it and corrected.

A picture's structure is the cosine similarity of every pair of tokens, by the keys of the last attention layer of DINO
ViT-B/8 (layer 11), for the picture resized to 224 pixels.  The distance of two pictures is the mean squared difference
of their similarities.  The network wants pictures in [0, 1], normalised by the mean and deviation of ImageNet.
PIE-Bench's published code hands it pictures in 0..255 before that normalisation, and every printed number was made so;
hence two distances, which must never be mixed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SIDE", "Structure"]

SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_KEYS = ("key", "k_proj")  # what transformers has called the projection to keys


class Structure(nn.Module):
    """Structure distances by a vision transformer of transformers (`ViTModel`).

    Attributes:
        network: the transformer; published numbers are those of facebook/dino-vitb8.
    """

    def __init__(self, network: nn.Module) -> None:
        """Takes a network.  Raises TypeError if it has no projections to keys."""
        super().__init__()
        self.network = network
        projections = [module for name, module in network.named_modules() if name.split(".")[-1] in _KEYS]
        if not projections:
            raise TypeError(f"{type(network).__name__} has no projection to keys: pass a ViTModel of transformers")
        self._last = [projections[-1]]  # in a list, so that it is registered once, in the network

    def forward(self, a: Tensor, b: Tensor, *, published: bool) -> Tensor:
        """Distances [batch] of pictures [batch, 3, height, width] in [0, 1].

        Args:
            a: the pictures.
            b: those that they are compared with.
            published: whether 0..255 goes into the normalisation, as in PIE-Bench's code, instead of 0..1.
        """
        difference = self.similarity(a, published=published) - self.similarity(b, published=published)
        return difference.square().flatten(1).mean(1)

    def similarity(self, pixels: Tensor, *, published: bool) -> Tensor:
        """Cosine similarities [batch, tokens, tokens] of the keys, the class token's among them."""
        # the shorter side to 224, bilinear without antialiasing, as torchvision 0.13 resizes tensors
        factor = SIDE / min(pixels.shape[-2:])
        size = [round(side * factor) for side in pixels.shape[-2:]]
        resized = F.interpolate(pixels * (255 if published else 1), size, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(each, device=pixels.device)[:, None, None] for each in (_MEAN, _STD))
        found: list[Tensor] = []
        hook = self._last[0].register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            self.network((resized - mean) / std, interpolate_pos_encoding=True)
        finally:
            hook.remove()
        keys = F.normalize(found[0].float(), dim=-1)
        return keys @ keys.transpose(1, 2)
