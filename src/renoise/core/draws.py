"""Random numbers of a batch, each image's from its own generator, so that a batch equals its images one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["white_noise"]


def white_noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], *, steps: int | None = None, device: torch.device
) -> Tensor:
    """White noise, float32.

    Args:
        generators: one per image.
        shape: of one image's latents.
        steps: how many noises each image gets, drawn one after the other; None for one without that dimension.
        device: where the noise is wanted; it is drawn where the generators are.

    Returns:
        [batch, *shape], or [steps, batch, *shape].
    """
    each = tuple(shape) if steps is None else (steps, *shape)
    drawn = [torch.randn(each, generator=g, dtype=torch.float32, device=g.device) for g in generators]
    return torch.stack([noise.to(device) for noise in drawn], dim=0 if steps is None else 1)
