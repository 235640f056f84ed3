"""Random numbers of a batch.  Each image draws from its own generator, so a batch gives what its images give alone."""

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
        shape: shape of one image's latents.
        steps: how many noises each image gets, drawn one after the other.  None draws one and omits that dimension.
        device: device of the returned noise.  The noise is drawn on the device of the generators.

    Returns:
        [batch, *shape] if `steps` is None, else [steps, batch, *shape].
    """
    each = tuple(shape) if steps is None else (steps, *shape)
    drawn = [torch.randn(each, generator=g, dtype=torch.float32, device=g.device) for g in generators]
    return torch.stack([noise.to(device) for noise in drawn], dim=0 if steps is None else 1)
