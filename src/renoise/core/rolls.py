"""Rolls of the auto-correlation loss: by how many pixels each scale of a map's pyramid is shifted against itself.

The loss itself is in `renoise.core.edit_losses`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_rolls", "draw_rolls", "pyramid", "rolls_shape"]

_COARSEST = 8  # shorter side of the coarsest scale, at least, in pixels


def draw_rolls(
    shape: Sequence[int],
    *,
    steps: int,
    rolls: int,
    generators: Sequence[torch.Generator],
    include_zero: bool = False,
) -> Tensor:
    """Draw the rolls for one call of `enhance`, each image from its own generator.

    A roll is smaller than half the shorter side of its scale.  Roll 0 multiplies the map with itself, which would
    lower the variance of the map instead of its correlation, so it is not drawn.

    Args:
        shape: (batch, channel, height, width) of the maps, both sides at least 4 pixels.
        steps: gradient steps, at least 1.
        rolls: rolls per gradient step, at least 1.
        generators: one per image.  Each advances by the same amount whatever the batch size.
        include_zero: also draw roll 0, as the published experiments did.  On square maps whose side is a power of two
            this repeats their random numbers as well: one draw per step, roll, channel and scale, in this order.

    Returns:
        int64 [batch, step, roll, channel, scale] on the CPU.

    Raises:
        ValueError: a count is below 1, there is not one generator per image, or the maps are too small for any roll
            other than 0.
    """
    batch, channels, height, width = shape
    if steps < 1 or rolls < 1:
        raise ValueError(f"steps={steps}, rolls={rolls}: nothing to draw; pass 1 or more of both, or lambda_pair=0")
    if len(generators) != batch:
        raise ValueError(f"{len(generators)} generators for {batch} images: pass one torch.Generator per image")
    sizes = pyramid(height, width)
    if min(sizes[-1]) < 4:
        raise ValueError(
            f"maps of {height}x{width} pixels have no roll between 0 and half their side: use latents of 4x4 or more, "
            "or skip this loss with lambda_pair=0"
        )
    lowest = 0 if include_zero else 1
    choices = torch.tensor([min(size) // 2 - lowest for size in sizes])
    drawn = [
        torch.randint(2**24, (steps, rolls, channels, len(sizes)), generator=generator, device=generator.device).cpu()
        for generator in generators
    ]
    return torch.stack(drawn) % choices + lowest  # 2^24 values over at most a few hundred rolls: nearly uniform


def pyramid(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of every scale, the map itself first."""
    sizes = [(height, width)]
    while min(sizes[-1]) // 2 >= _COARSEST:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def rolls_shape(shape: Sequence[int]) -> tuple[int, int]:
    """The sizes (channel, scale) of rolls for maps [batch, channel, height, width]."""
    return shape[1], len(pyramid(shape[2], shape[3]))


def check_rolls(rolls: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError for rolls that are not whole numbers or not of this shape."""
    if rolls.shape != shape or rolls.is_floating_point():
        raise ValueError(
            f"rolls are {rolls.dtype} {list(rolls.shape)}, these maps need whole numbers {list(shape)}: use draw_rolls"
        )
