"""Other methods of inversion, written from their papers' formulas: solvers and methods for `Settings`.

In the letters of `renoise.core.table` a step of a sampler is z_s = a z_t + b m(z_t) + n eps; inversion seeks the fixed
point of g(z) = (z_s - b m(z) - n eps) / a, which is z_t.

* **AIDI** (Pan et al., "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion", ICCV 2023): its
  empirical acceleration averages the last two images of the map, z^(k+1) = g(z^(k)) / 2 + g(z^(k-1)) / 2.  Its other
  one is Anderson's, which `renoise.core.solvers` has.
* **Damping**, the textbook's cure for a fixed point that is circled, z^(k+1) = z^(k) / 2 + g(z^(k)) / 2.
* **GNRI** (Samuel et al., "Lightning-Fast Image Inversion and Editing for Text-to-Image Diffusion Models", ICLR 2025):
  Newton-Raphson steps on one number, the residual's norm and a prior,

      F(z) = ||z - g(z)||_1 + lambda ||z - mu||^2 / (2 sigma^2),        z_i <- z_i - F(z) / (D dF/dz_i),

  where N(mu, sigma^2) is the forward process from z_s, alpha_t / alpha_s z_s and sigma_t^2 - (alpha_t / alpha_s)^2
  sigma_s^2, and D how many numbers z has.  A step takes one pass forward and one backward.  Written from memory of the
  formula; where dF/dz_i is near 0 the quotient is bounded, see `gnri`.
* **Edit-friendly noise maps** (Huberman-Spiegelglas et al., "An Edit Friendly DDPM Noise Space", CVPR 2024): every z_t
  is the picture noised on its own, and the noise of each step whatever leads from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from renoise.core.correction import travel
from renoise.core.query import Denoiser, Query
from renoise.core.table import StepTable
from renoise.core.trajectory import StepReport, Trajectory

__all__ = ["Linearised", "blended", "damped", "edit_friendly", "gnri"]

_STEEPEST_PRIOR = 1e-6  # least variance of the prior, for steps between levels that are all but alike


@dataclass(frozen=True, eq=False)
class Linearised(Query):
    """Asks for m at the latents and, from the same evaluation, for (dm/dz)^T cotangent(m): [2 * batch, ...] in all."""

    cotangent: Callable[[Tensor], Tensor] = torch.zeros_like

    def answer(self, denoise: Denoiser) -> Tensor:
        """One pass forward and one backward, through a denoiser that autograd can look through."""
        with torch.enable_grad():
            z = self.z.detach().requires_grad_()
            m = denoise(replace(self, z=z))
            back = torch.autograd.grad(m, z, self.cotangent(m.detach()))[0]
        return torch.cat((m.detach(), back))


def blended(reverse: Callable[[Tensor], Tensor], start: Tensor) -> Generator[Tensor, Tensor, None]:
    """AIDI's iteration as a solver of `renoise.core.solvers`: g is affine in m, so predictions are averaged instead."""
    before = yield start
    z = reverse(before)
    while True:
        m = yield z
        z, before = reverse((before + m) / 2), m


def damped(reverse: Callable[[Tensor], Tensor], start: Tensor) -> Generator[Tensor, Tensor, None]:
    """Half steps as a solver of `renoise.core.solvers`."""
    z = start
    while True:
        z = (z + reverse((yield z))) / 2


def gnri(
    table: StepTable, z_0: Tensor, noises: Tensor | None, *, passes: int, prior: float, flattest: float
) -> Generator[Query, Tensor, Trajectory]:
    """Invert by guided Newton-Raphson steps, `passes` forward and as many backward a step of the sampler.

    F is a mean over an image's numbers here, which leaves the step as it is.

    Args:
        prior: lambda, 0 or more.
        flattest: dF/dz_i is kept at least this / D from 0, with its sign, so that no number jumps further than the mean
            residual divided by it.  That of the bare residual is 1 / D.
    """
    z, reports = z_0, []
    each = (-1, *[1] * (z_0.ndim - 1))
    for step in reversed(range(len(table))):
        z_s, noise = z, None if noises is None else noises[step]
        mu, variance = _forward(table, step, z_s)
        pull = -table.b[step].item() / table.a[step].item()  # dg = pull dm
        residuals = []
        for _ in range(passes):

            def sign_of_residual(
                m: Tensor, z: Tensor = z, step: int = step, z_s: Tensor = z_s, noise: Tensor | None = noise
            ) -> Tensor:
                return (z - table.backward(step, z_s, m, noise)).sign()

            m, back = (yield Linearised(z, step, cotangent=sign_of_residual)).chunk(2)
            residual = z - table.backward(step, z_s, m, noise)
            residuals.append(residual.flatten(1).square().mean(1).sqrt())
            objective = (residual.abs() + prior * (z - mu).square() / (2 * variance)).flatten(1).mean(1)
            slope = residual.sign() - pull * back + prior * (z - mu) / variance  # D dF/dz
            bounded = slope.abs().clamp_min(flattest).copysign(slope)
            z = z - objective.view(each) / bounded
        reports.append(_report(table, step, passes, torch.stack(residuals)))
    return _trajectory(table, z, noises, reports)


def edit_friendly(table: StepTable, z_0: Tensor, noises: Tensor | None) -> Generator[Query, Tensor, Trajectory]:
    """Invert by independently noised latents; `noises` [step, batch, ...] noise them.  One pass per step with noise.

    A step without noise, usually the last, is left to miss.  The whole noise is residual, so all of it counts as moved.
    """
    if noises is None:
        raise ValueError("edit-friendly inversion needs a sampler that draws noise")
    latents = [*(table.noisy(step, z_0, noises[step]) for step in range(len(table))), z_0]
    found, reports = noises.clone(), []
    for step in reversed(range(len(table))):
        if table.n[step] == 0:
            reports.append(_report(table, step, 0, z_0.new_zeros(0, len(z_0))))
            continue
        m = yield Query(latents[step], step)
        found[step] = table.residual_noise(step, latents[step + 1], latents[step], m)
        moved = travel(torch.zeros_like(found[step]), found[step])
        reports.append(replace(_report(table, step, 1, z_0.new_zeros(0, len(z_0))), noise_travel=moved))
    return _trajectory(table, latents[0], found, reports)


def _forward(table: StepTable, step: int, z_s: Tensor) -> tuple[Tensor, float]:
    """Mean and variance of z_t given z_s by the forward process; the row after the last is the clean latent."""
    alpha, sigma = table.alpha[step].item(), table.sigma[step].item()
    last = step + 1 == len(table)
    ratio = alpha if last else alpha / table.alpha[step + 1].item()
    below = 0.0 if last else table.sigma[step + 1].item()
    return ratio * z_s, max(sigma**2 - (ratio * below) ** 2, _STEEPEST_PRIOR)


def _report(table: StepTable, step: int, passes: int, residuals: Tensor) -> StepReport:
    return StepReport(step, float(table.timesteps[step]), table.level(step), passes, residuals)


def _trajectory(table: StepTable, z: Tensor, noises: Tensor | None, reports: list[StepReport]) -> Trajectory:
    return Trajectory(table, z, noises, tuple(reversed(reports)), sum(report.passes for report in reports))
