r"""Where an edit wants to change the picture, from what the two prompts disagree about.

At every step an edit has the difference D between the clean estimates under the target prompt and under the source
prompt (see `renoise.core.editing`).  Its size says where the prompts disagree.  One step says little, since at high
noise levels the estimates are vague, so the evidence is accumulated:

    s = mean over 3 x 3 places of  sum over steps of  |D| / mean(|D|),      |D| averaged over channels

and the soft gate lets through what has much of it,

    M = 1 / (1 + (p top / s)^8),      top: the 98th percentile of s                                       (7)

p = 0 lets everything through. Otherwise p is the share of the top at which half passes. The power is high so that few
places change by half, since half of a change is a double exposure: benchmarks/editing.py compares it with lower ones.
Everything is computed for each image on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["POWER", "TOP", "Evidence", "soft_gate", "top_of"]

TOP = 0.98
POWER = 8


class Evidence:
    """Accumulates the differences of the steps so far.

    Attributes:
        map: s [batch, 1, height, width], or None before the first step.  Its mean over an image is the number of steps.
    """

    def __init__(self) -> None:
        self.map: Tensor | None = None
        self._sum: Tensor | None = None

    def add(self, difference: Tensor) -> Tensor:
        """Takes the difference of one step as maps [batch, channels, height, width]; returns `map`."""
        size = difference.abs().mean(1, keepdim=True)
        mean = size.mean((2, 3), keepdim=True)
        share = torch.where(mean > 0, size / mean.clamp(min=torch.finfo(mean.dtype).tiny), 0)
        self._sum = share if self._sum is None else self._sum + share
        self.map = nn.functional.avg_pool2d(self._sum, 3, stride=1, padding=1, count_include_pad=False)
        return self.map


def top_of(evidence: Tensor) -> Tensor:
    """The evidence [batch, 1, height, width] that 98 % of the places do not exceed, per picture: [batch, 1, 1, 1]."""
    return torch.quantile(evidence.flatten(1), TOP, dim=1).view(-1, 1, 1, 1)


def soft_gate(evidence: Tensor, preserve: float) -> Tensor:
    """M of (7).

    Args:
        evidence: s [batch, 1, height, width], 0 or more.
        preserve: p, in [0, 1].

    Returns:
        [batch, 1, height, width] in [0, 1].
    """
    if preserve == 0:
        return torch.ones_like(evidence)
    s = evidence.clamp(min=torch.finfo(evidence.dtype).tiny)
    return 1 / (1 + (preserve * top_of(evidence) / s) ** POWER)
