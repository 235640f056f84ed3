"""Masks: where an edit may change a picture.

A mask is a float tensor [batch, 1, height, width] in [0, 1] in the pixels of the model's picture, 1 where the picture
may change.  It is 0 on the padding.  Beyond the mask an edit gives back the very pixels that it was given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from renoise.core.checks import shown, whole
from renoise.core.gate import top_of
from renoise.images import Box, ImageError, Source, open_image

__all__ = [
    "AUTO_SHARE",
    "MaskWords",
    "blended",
    "check_amounts",
    "feathered",
    "from_evidence",
    "grown",
    "on_latents",
    "opened",
    "read",
]

AUTO_SHARE = 0.35
"""Of the evidence's top, from which on an automatic mask lets the picture change (docs/editing.md)."""
_SHARE_OF_SIDE = 64  # the default feather is one pixel for as many pixels of the shorter side


@dataclass(frozen=True, eq=False)
class MaskWords:
    """A mask as a user asked for it.

    Attributes:
        mask: [batch, 1, height, width] in [0, 1] in pixels, or None for an automatic one.
        boxes: where each picture lies inside its padding.
        grow: pixels by which it is made larger, or smaller where negative.
        feather: pixels over which it fades beyond its edge.
    """

    mask: Tensor | None
    boxes: tuple[Box, ...]
    grow: int
    feather: int

    def pixels(self, found: Tensor) -> Tensor:
        """Grown and feathered inside each picture, from the user's mask or from the one that was found."""
        mask = found if self.mask is None else self.mask
        placed = torch.zeros_like(mask)
        for number, (left, top, right, bottom) in enumerate(self.boxes):
            own = (slice(number, number + 1), slice(None), slice(top, bottom), slice(left, right))
            placed[own] = feathered(grown(mask[own], self.grow), self.feather)
        return placed


def opened(mask: Source | Sequence[Source], boxes: Sequence[Box], size: tuple[int, int]) -> Tensor:
    """Masks as users hand them over: white, 1 or True where the picture may change.

    Args:
        mask: what `renoise.images.open_image` reads, of the shape of the picture that was inverted (the resolution may
            differ); one for all pictures, or a list of one each.
        boxes: where each picture lies inside its padding.
        size: (height, width) of the padded pictures.

    Raises:
        ImageError: no such picture, or one of another shape than the picture that it belongs to.
        ValueError: not as many masks as pictures, or a mask that is black everywhere.
    """
    masks = list(cast("Sequence[Source]", mask)) if isinstance(mask, (list, tuple)) else [cast("Source", mask)]
    if len(masks) not in (1, len(boxes)):
        raise ValueError(f"{len(masks)} masks for {len(boxes)} pictures: pass one for all, or one each")
    masks = masks if len(masks) == len(boxes) else masks * len(boxes)
    placed = torch.zeros(len(boxes), 1, *size)
    for number, (one, (left, top, right, bottom)) in enumerate(zip(masks, boxes, strict=True)):
        shape = right - left, bottom - top
        fitted = read(one, shape).resize(shape, Image.Resampling.BOX)
        placed[number, 0, top:bottom, left:right] = torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255)
    return placed


def read(mask: Source, size: tuple[int, int]) -> Image.Image:
    """A mask as a grey picture, in its own resolution.

    Args:
        mask: what `renoise.images.open_image` reads, transparency being black, or a tensor [height, width].
        size: (width, height) of the picture that it belongs to, in any resolution.

    Raises:
        ImageError: no such picture, or one of another shape.
        ValueError: a mask that is black everywhere.
    """
    if isinstance(mask, Tensor) and mask.ndim == 2:  # such as that of an edited picture
        mask = (mask.float() if mask.is_floating_point() else mask).detach().cpu().numpy()
    if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.dtype.kind in "iu" and mask.size and mask.max() <= 1:
        mask = mask.astype(bool)  # 0 and 1 in whole numbers
    try:
        grey = open_image(_on_black(mask)).convert("L")
    except ImageError as error:
        raise ImageError(f"mask={shown(mask)}: {error}") from error
    (width, height), (own_width, own_height) = size, grey.size
    # what fit makes of a shape is whole pixels, so shapes may differ by one
    if abs(own_width * height - own_height * width) > max(grey.size) + max(size):
        raise ImageError(
            f"the mask is {own_width} x {own_height} and the picture {width} x {height}: pass a mask of the shape of "
            "the picture (in any resolution)"
        )
    if grey.getextrema() == (0, 0):
        raise ValueError("the mask is black everywhere, so nothing may change: paint white where the edit belongs")
    return grey


def _on_black(mask: Source) -> Source:
    """A picture with its transparency on black: what nobody painted may not change."""
    if isinstance(mask, (str, os.PathLike)) and Path(mask).is_file():
        try:
            with Image.open(mask) as picture:
                mask = picture.copy() if picture.has_transparency_data else mask
        except (OSError, ValueError):
            return mask  # which is told of where it is read again
    if not isinstance(mask, Image.Image) or not mask.has_transparency_data:
        return mask
    layer = mask.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")


def check_amounts(grow: Any, feather: Any, size: tuple[int, int]) -> tuple[int, int]:
    """`mask_grow` and `mask_feather` as whole numbers of pixels, the latter with its default.

    Raises:
        TypeError, ValueError: no whole numbers, or more than the picture's side.
    """
    most = min(size)
    grow = whole("mask_grow", grow, f" is no whole number of pixels from {-most} to {most}", least=-most, most=most)
    if feather is None:
        return grow, max(1, round(most / _SHARE_OF_SIDE))
    return grow, whole("mask_feather", feather, f" is no whole number of pixels from 0 to {most}", least=0, most=most)


def grown(mask: Tensor, pixels: int) -> Tensor:
    """The mask, larger by some pixels on every side, or smaller where they are negative."""
    if pixels == 0:
        return mask
    reach = abs(pixels)
    if pixels > 0:
        return _widest(mask, reach)
    return 1 - _widest(1 - mask, reach)


def feathered(mask: Tensor, pixels: int) -> Tensor:
    """The mask, fading in a straight line over some pixels beyond its edge; inside it stays as it is.

    A pixel that is further than that from the mask (in columns and in rows) is exactly 0.
    """
    total, ring = mask.clone(), mask
    for _ in range(pixels):
        ring = _widest(ring, 1)
        total += ring
    return total / (pixels + 1)


def on_latents(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask in the resolution of the latents' maps: the largest value among the pixels of each place."""
    return nn.functional.adaptive_max_pool2d(mask, size)


def from_evidence(evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the evidence of `renoise.core.gate` exceeds AUTO_SHARE of its 98th percentile, in pixels, 0 or 1."""
    share = evidence / top_of(evidence).clamp(min=1e-12)
    smooth = nn.functional.interpolate(share, size, mode="bilinear", align_corners=False)
    return (smooth > AUTO_SHARE).float()


def blended(source: Tensor, edited: Tensor, mask: Tensor) -> Tensor:
    """Pixels [batch, 3, height, width] of `edited` in the mask and of `source` beyond it; there the same bits."""
    return torch.where(mask > 0, source + mask * (edited - source), source)


def _widest(mask: Tensor, reach: int) -> Tensor:
    rows = nn.functional.max_pool2d(mask, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return nn.functional.max_pool2d(rows, (1, 2 * reach + 1), stride=1, padding=(0, reach))
