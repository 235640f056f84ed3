"""Solve one sampler step for its noisier latent: renoising.

The step z_s = a z_t + b m(z_t) + n eps, read backwards, is an implicit equation for z_t (eq. 2 of `schedule`):

    z_t = (z_s - b m(z_t) - n eps) / a.

Renoising (Garibi et al., ECCV 2024, sec. 3.2) iterates it from z^(0) = z_s.  Pass k = 0..K asks for the network's
prediction m_k at z^(k), and its right side is the next estimate,

    z^(k+1) = (z_s - b m_k - n eps) / a,

which nears the solution where |b / a| ||dm/dz|| < 1; nothing promises that, so the residuals are handed back.  K = 0 is
plain sampler reversing.  With weights w_k the step ends on the weighted mean of the predictions instead of the last
(sec. 3.3): z_t = (z_s - b sum_k w_k m_k - n eps) / a, which damps estimates that circle the solution.

A solver is a generator: it yields the latent at which it wants a prediction, is sent that prediction, and returns a
`Solution`.  It knows neither the network nor the loop over the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from renoise.schedule import StepTable

__all__ = ["Solution", "renoise"]


@dataclass(frozen=True, eq=False)
class Solution:
    """One step solved for a batch of images.

    Attributes:
        estimate: z_t [batch, ...].
        residuals: [pass, batch], how far each pass moved the estimate: RMS over an image's numbers of
            z^(k+1) - z^(k), the last one to `estimate`.
        passes: predictions asked for, K + 1.
    """

    estimate: Tensor
    residuals: Tensor
    passes: int


def renoise(
    table: StepTable,
    step: int,
    z_s: Tensor,
    noise: Tensor | None,
    *,
    iterations: int,
    weights: tuple[float, ...] | None = None,
    nudge: Callable[[Tensor], Tensor] | None = None,
) -> Generator[Tensor, Tensor, Solution]:
    """Yields estimates z^(k) [batch, ...]; expects the network's predictions at them, same shape.

    Args:
        table: the sampler's rows.
        step: which of them.
        z_s: the less noisy latent, float32 or float64 [batch, ...].
        noise: the step's noise, same shape; None where it draws none.
        iterations: renoising iterations K, 0 or more.
        weights: K + 1 numbers of 0 or more with a positive sum, normalised here; None ends on the last prediction.
        nudge: moves a prediction towards white noise (the edit losses).  As in the published experiments, a prediction
            that enters the mean is nudged before it drives the next pass, the mean is made of predictions that are not,
            and is nudged once itself.  Not used without weights.
    """
    shares = None if weights is None else [weight / sum(weights) for weight in weights]
    z, mean = z_s, torch.zeros_like(z_s)
    residuals = []
    for k in range(iterations + 1):
        m = yield z
        averaged = shares is not None and shares[k] > 0
        if shares is not None and averaged:
            mean = mean + shares[k] * m
        if k == iterations and shares is not None:
            m, averaged = mean, True
        if nudge and averaged:
            m = nudge(m)
        estimate = table.backward(step, z_s, m, noise)
        residuals.append((estimate - z).flatten(1).square().mean(1).sqrt())
        z = estimate
    return Solution(z, torch.stack(residuals), iterations + 1)
