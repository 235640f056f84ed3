"""Methods of inversion by other authors, written from the formulas of their papers, for use in `Settings`.

In the letters of `renoise.core.table` a step of a sampler is z_s = a z_t + b m(z_t) + n eps.  Inversion looks for z_t,
which is the fixed point of g(z) = (z_s - b m(z) - n eps) / a.

* **AIDI** (Pan et al., "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion", ICCV 2023).  Its
  empirical acceleration averages the last two values of g, z^(k+1) = g(z^(k)) / 2 + g(z^(k-1)) / 2.  Its other
  acceleration is Anderson's, which `renoise.core.solvers` has.
* **Damping**, the textbook method for iterations that circle the fixed point: z^(k+1) = z^(k) / 2 + g(z^(k)) / 2.
* **GNRI** (Samuel et al., "Lightning-Fast Image Inversion and Editing for Text-to-Image Diffusion Models", ICLR 2025):
  Newton-Raphson steps on one number, the sum of the residual's norm and a prior,

      F(z) = ||z - g(z)||_1 + lambda ||z - mu||^2 / (2 sigma^2),        z_i <- z_i - F(z) / (D dF/dz_i).

  N(mu, sigma^2) is the forward process from z_s, with mu = alpha_t / alpha_s z_s and
  sigma^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2.  D is how many numbers z has.  An iteration takes one forward
  and one backward pass.  The formula was written from memory, and the quotient is bounded if dF/dz_i is near 0 (see
  `gnri`).
* **Edit-friendly noise maps** (Huberman-Spiegelglas et al., "An Edit Friendly DDPM Noise Space", CVPR 2024): every z_t
  is the image with noise of its own, and the noise of each step is whatever leads from one z_t to the next.
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

_LEAST_VARIANCE = 1e-6  # of the prior, for steps between nearly equal noise levels


@dataclass(frozen=True, eq=False)
class Linearised(Query):
    """Asks for m at the latents and, from the same evaluation, for (dm/dz)^T cotangent(m).

    The answer holds both in this order, [2 * batch, ...].
    """

    cotangent: Callable[[Tensor], Tensor] = torch.zeros_like

    def answer(self, denoise: Denoiser) -> Tensor:
        """One forward and one backward pass.  The denoiser must be differentiable by autograd."""
        with torch.enable_grad():
            z = self.z.detach().requires_grad_()
            m = denoise(replace(self, z=z))
            back = torch.autograd.grad(m, z, self.cotangent(m.detach()))[0]
        return torch.cat((m.detach(), back))


def blended(reverse: Callable[[Tensor], Tensor], start: Tensor) -> Generator[Tensor, Tensor, None]:
    """AIDI's iteration as a solver (see `renoise.core.solvers`).  It averages predictions, because g is affine in m."""
    before = yield start
    z = reverse(before)
    while True:
        m = yield z
        z, before = reverse((before + m) / 2), m


def damped(reverse: Callable[[Tensor], Tensor], start: Tensor) -> Generator[Tensor, Tensor, None]:
    """Damping as a solver (see `renoise.core.solvers`)."""
    z = start
    while True:
        z = (z + reverse((yield z))) / 2


def gnri(
    table: StepTable, z_0: Tensor, noises: Tensor | None, *, passes: int, prior: float, flattest: float
) -> Generator[Query, Tensor, Trajectory]:
    """Invert by GNRI, as a method of `Settings`.

    F is the mean over the numbers of an image here instead of the sum, which does not change z_i.

    Args:
        table: the sampler's rows.
        z_0: clean latents [batch, ...].
        noises: the sampler's noise [step, batch, ...], None if it draws none.
        passes: iterations per step of the sampler, each with one forward and one backward pass.
        prior: lambda, 0 or more.
        flattest: least absolute value of D dF/dz_i.  Smaller ones are replaced by it and keep their sign, so that no
            number of z moves further than F divided by this value.  Without prior and network, D dF/dz_i is 1 or -1.
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
    """Invert by edit-friendly noise maps, as a method of `Settings`.  Takes one pass per step that draws noise.

    The latents of all steps are noised independently, by `noises` [step, batch, ...].  The error of a step without
    noise, usually the last, stays.  The whole noise of a step is residual noise, so all of it counts as moved.

    Raises:
        ValueError: the sampler draws no noise.
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
    """Mean and variance of z_t given z_s by the forward process.  After the last row z_s is the clean latent."""
    alpha, sigma = table.alpha[step].item(), table.sigma[step].item()
    last = step + 1 == len(table)
    ratio = alpha if last else alpha / table.alpha[step + 1].item()
    below = 0.0 if last else table.sigma[step + 1].item()
    return ratio * z_s, max(sigma**2 - (ratio * below) ** 2, _LEAST_VARIANCE)


def _report(table: StepTable, step: int, passes: int, residuals: Tensor) -> StepReport:
    return StepReport(step, float(table.timesteps[step]), table.level(step), passes, residuals)


def _trajectory(table: StepTable, z: Tensor, noises: Tensor | None, reports: list[StepReport]) -> Trajectory:
    return Trajectory(table, z, noises, tuple(reversed(reports)), sum(report.passes for report in reports))
