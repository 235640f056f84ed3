r"""The clean estimate that a network's prediction implies, read off a sampler's rows.

Networks predict noise, velocity or the clean latent.  With the forward process z_t = alpha z_0 + sigma eps each kind of
prediction m implies a clean estimate that is affine in latent and prediction,

    x(z_t, m) = c1 z_t + c2 m                                                                        (3)

    noise eps:                  c1 = 1 / alpha,                     c2 = -sigma / alpha
    v = alpha eps - sigma z_0:  c1 = alpha / (alpha^2 + sigma^2),   c2 = -sigma / sqrt(alpha^2 + sigma^2)
    clean latent z_0:           c1 = 0,                             c2 = 1
    flow eps - z_0:             c1 = 1,                             c2 = -sigma

Every first-order sampler moves between the clean estimate and the latent itself: its row (see `renoise.core.table`) is

    z_s = k x(z_t, m) + r z_t + n eps,      a = k c1 + r,   b = k c2,   k + r alpha_t = alpha_s        (4)

The last equation says that a latent without noise stays one.  It holds for the right kind of prediction and for no
other, so the kind need not be told: `clean_estimate` finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from renoise.core.table import StepTable

__all__ = ["CleanEstimate", "clean_estimate", "prediction_kinds"]

_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class CleanEstimate:
    """The numbers of (3) for every row of a table, float64 [T] on the CPU.

    Attributes:
        of_z: c1.
        of_m: c2, never 0.
    """

    of_z: Tensor
    of_m: Tensor


def prediction_kinds(alpha: Tensor, sigma: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """c1 and c2 of (3) at these levels for noise, flow, v and clean latent, in this order."""
    one, power = torch.ones_like(alpha), alpha.square() + sigma.square()
    return (
        (1 / alpha, -sigma / alpha),
        (one, -sigma),
        (alpha / power, -sigma / power.sqrt()),
        (0 * one, one),
    )


def clean_estimate(table: StepTable) -> CleanEstimate:
    """Finds the kind of prediction with which a table's rows agree.

    Raises:
        ValueError: the scheduler tells no noise levels, or its rows agree with no known kind of prediction.
    """
    alpha, sigma = table.alpha, table.sigma
    if not (alpha.isfinite().all() and sigma.isfinite().all()):
        raise ValueError(
            "this scheduler does not tell the noise level of its latents, because it has no forward process "
            "(add_noise or scale_noise): only a plain edit works, without preserve, strength, mask and the like"
        )
    # the level to which the last step leads is not in the table: about 1, and for schedules of one step that has to do
    after = torch.cat([alpha[1:], torch.ones(1, dtype=alpha.dtype)])
    rows = slice(0, len(table) - 1) if len(table) > 1 else slice(0, 1)
    fitting: list[tuple[float, CleanEstimate]] = []
    for of_z, of_m in prediction_kinds(alpha, sigma):
        clean = table.b / of_m
        kept = table.a - clean * of_z
        wrong = (clean + kept * alpha - after).abs() / after
        if wrong[rows].max() < _TOLERANCE:
            fitting.append((wrong[-1].item(), CleanEstimate(of_z, of_m)))
    if not fitting:
        raise ValueError(
            "the steps of this sampler agree with no kind of prediction that is known (noise, v, clean latent, flow): "
            "only a plain edit works, without preserve, strength, mask and the like"
        )
    # at pure noise (alpha = 0) some kinds fit alike, and the last step tells them apart
    return min(fitting, key=lambda fit: round(fit[0], 4))[1]
