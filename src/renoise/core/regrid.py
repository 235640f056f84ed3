r"""Generate with another number of steps than the inversion used, for samplers that draw no noise.

A grid is the list of noise levels that a schedule visits.  A sampler without noise follows one curve on every grid, so
z_T, found at the noisiest level of one grid, can be the start of another grid.  If the other grid does not have this
level, one step has to lead from it to the next level of the other grid.  The row of that step follows from the measured
one.  A deterministic step adds noise to its clean estimate x(z, m) = c1 z + c2 m up to the next level,

    z_s = alpha_s x + sigma_s (z - alpha_t x) / sigma_t = k x + r z,    r = sigma_s / sigma_t,  k = alpha_s - r alpha_t

so a = k c1 + r and b = k c2 give c1 and c2, and these give a and b for any other level.  c1 and c2 are compared with
the clean estimates of the known kinds of prediction.  A sampler that agrees with none of them is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from renoise.core.clean import prediction_kinds
from renoise.core.table import COLUMNS, StepTable

__all__ = ["regrid"]


def regrid(walked: StepTable, wanted: StepTable) -> StepTable:
    """The steps of `wanted`, preceded by a step from the noisiest level of `walked` where that is needed.

    Args:
        walked: the table of an inversion.
        wanted: the table of a whole schedule of the same sampler and model with another number of steps.

    Raises:
        ValueError: the sampler draws noise (which belongs to the steps of one grid), it has no forward process or a
            step that cannot lead to another level, or `wanted` has no step at or below the first level of `walked`.
    """
    if walked.stochastic or wanted.stochastic:
        raise ValueError(
            f"num_inference_steps={len(wanted)} after an inversion with {len(walked)}: this sampler draws noise, and "
            "the noise that was found belongs to the steps of the inversion; invert again with that number of steps"
        )
    start = walked.timesteps[0]
    rest = int((wanted.timesteps <= start + 1e-6).sum())
    if rest == 0:
        raise ValueError(
            f"num_inference_steps={len(wanted)} has no step at or below the level t = {float(start):g} to which the "
            "inversion went; use more steps"
        )
    tail = wanted.tail(rest)
    if abs(tail.timesteps[0] - start) <= 1e-6:
        return tail
    a, b = _first_step(walked, tail)
    first = {name: getattr(walked, name)[:1] for name in COLUMNS} | {"a": a, "b": b}
    columns: dict[str, Any] = {name: torch.cat([first[name], getattr(tail, name)]) for name in COLUMNS}
    return replace(tail, **columns)


def _first_step(walked: StepTable, tail: StepTable) -> tuple[Tensor, Tensor]:
    """a and b, [1] each, of a step from the first level of `walked` to the first level of `tail`."""
    if len(walked) > 1:
        alpha, sigma = walked.alpha[:1], walked.sigma[:1]
        ratio = walked.sigma[1:2] / sigma
        share = walked.alpha[1:2] - ratio * alpha
        of_z, of_m = (walked.a[:1] - ratio) / share, walked.b[:1] / share
        known = prediction_kinds(alpha, sigma)
        if any(torch.allclose(of_z, z, 1e-3, 1e-4) and torch.allclose(of_m, m, 1e-3, 1e-4) for z, m in known):
            ratio = tail.sigma[:1] / sigma
            share = tail.alpha[:1] - ratio * alpha
            return share * of_z + ratio, share * of_m
    raise ValueError(
        f"num_inference_steps: the step at t = {float(walked.timesteps[0]):g} cannot lead to "
        f"t = {float(tail.timesteps[0]):g} on this sampler; invert again with that number of steps"
    )
