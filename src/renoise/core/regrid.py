r"""Generating with another number of steps than the inversion walked, for samplers that draw no noise.

Such a sampler follows one curve whatever its grid, so the latent z_T that was found at the noisiest level of one grid
is a point from which another grid can go on.  Where that level is not on the other grid, one step has to lead from it
to the other grid's next level.  Its row follows from the measured one.  A deterministic step re-noises its clean
estimate x(z, m) = c1 z + c2 m to the next level,

    z_s = alpha_s x + sigma_s (z - alpha_t x) / sigma_t = k x + r z,    r = sigma_s / sigma_t,  k = alpha_s - r alpha_t

so a = k c1 + r and b = k c2 give c1 and c2, and these give a and b for any other level.  They are held against the
clean estimates of the known kinds of prediction; a sampler that agrees with none of them is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from renoise.core.table import COLUMNS, StepTable

__all__ = ["regrid"]


def regrid(walked: StepTable, wanted: StepTable) -> StepTable:
    """The steps from the noisiest level of `walked` down, on the levels of `wanted`.

    Args:
        walked: the table of an inversion.
        wanted: a whole schedule of the same sampler and model with another number of steps.

    Raises:
        ValueError: a sampler that draws noise (the noise of one grid says nothing on another), one without a forward
            process or with a step that cannot be led to another level, or no step of `wanted` below that of `walked`.
    """
    if walked.stochastic or wanted.stochastic:
        raise ValueError(
            f"num_inference_steps={len(wanted)} after an inversion with {len(walked)}: this sampler draws noise, and "
            "the noise of one grid says nothing on another; invert again with that number of steps"
        )
    start = walked.timesteps[0]
    rest = int((wanted.timesteps <= start + 1e-6).sum())
    if rest == 0:
        raise ValueError(
            f"num_inference_steps={len(wanted)} has no step at or below the level t = {float(start):g} from which the "
            "inversion starts; use more steps"
        )
    tail = wanted.tail(rest)
    if abs(tail.timesteps[0] - start) <= 1e-6:
        return tail
    a, b = _led(walked, tail)
    first = {name: getattr(walked, name)[:1] for name in COLUMNS} | {"a": a, "b": b}
    columns: dict[str, Any] = {name: torch.cat([first[name], getattr(tail, name)]) for name in COLUMNS}
    return replace(tail, **columns)


def _led(walked: StepTable, tail: StepTable) -> tuple[Tensor, Tensor]:
    """a and b, [1] each, of the step from the first level of `walked` to that of `tail`."""
    if len(walked) > 1:
        alpha, sigma = walked.alpha[:1], walked.sigma[:1]
        ratio = walked.sigma[1:2] / sigma
        share = walked.alpha[1:2] - ratio * alpha
        of_z, of_m = (walked.a[:1] - ratio) / share, walked.b[:1] / share
        one, power = torch.ones_like(alpha), alpha.square() + sigma.square()
        known = (  # epsilon, v-prediction for any alpha and sigma, sample, flow
            (1 / alpha, -sigma / alpha),
            (alpha / power, -sigma / power.sqrt()),
            (0 * one, one),
            (one, -sigma),
        )
        if any(torch.allclose(of_z, z, 1e-3, 1e-4) and torch.allclose(of_m, m, 1e-3, 1e-4) for z, m in known):
            ratio = tail.sigma[:1] / sigma
            share = tail.alpha[:1] - ratio * alpha
            return share * of_z + ratio, share * of_m
    raise ValueError(
        f"num_inference_steps: the step at t = {float(walked.timesteps[0]):g} cannot be led to "
        f"t = {float(tail.timesteps[0]):g} on this sampler; invert again with that number of steps"
    )
