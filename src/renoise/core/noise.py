"""Which noise a stochastic step is taken with, and which noise that leaves for the noisier latent.

Let z_s = alpha_s z_0 + sigma_s e_s be the latent at hand and e_s its noise, known because z_0 is.  The step that made
it (eq. 1 of `renoise.core.table`) turned the noise e_t of z_t into a part of it and added fresh noise,

    sigma_s e_s = d e_t + n eps,                 d^2 + n^2 = sigma_s^2,                                   (1)

where d, the deterministic part, is a sigma_t + b for a network that predicts noise.  It is taken from the second
equation here, which holds whatever the network predicts and however latents are scaled.

**Independent** noise, as published, draws eps = xi without looking at e_s.  Then (1) asks of the noisier latent
e_t = (sigma_s e_s - n xi) / d, whose variance (sigma_s^2 + n^2) / d^2 is above 1: z_T leaves the distribution of noise.
The e_t given below has the variance 1 + n^2 / sigma_s^2 instead, which a small d does not blow up.

**Matched** noise splits e_s instead, xi being fresh noise,

    eps = (n e_s + d xi) / sigma_s,              e_t = (d e_s - n xi) / sigma_s:                          (2)

a rotation of (e_s, xi), so both are white with variance 1 and independent of each other where e_s and xi are, and they
solve (1) exactly.

At the step nearest the image z_s is the image itself and carries no noise, so eps is fresh there, and e_t is wanted
such that the network's clean estimate at alpha z_0 + sigma e_t comes close to z_0.  An estimate of z_0 gives up part of
its details.  For an image of Gaussian details with variance S it keeps S alpha^2 / (S alpha^2 + sigma^2) of them, so
details enlarged by the inverse of that come out whole, without any noise; with noise as strong as the network expects
they come out under a veil of it.  The e_t given below lies between: fresh noise at half strength, and details (what a
mean of 3 x 3 latent pixels leaves) enlarged by 2.4 sigma^2 / (alpha^2 + sigma^2).  Measured on the embedded few-step
model, 8 passes, 64 validation pictures, LCM: .4 dB in the mean and 1.6 dB at the 5th percentile, against noise at full
strength alone.
Where that step is the only one, its latent is z_T, and the noise fresh and whole.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import avg_pool2d

from renoise.core.table import StepTable

__all__ = ["independent", "matched"]

_FRESH, _DETAIL = 0.5, 2.4  # nearest the image: strength of noise, and how details grow with its share of the variance


def independent(table: StepTable, step: int, z_s: Tensor, z_0: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """eps and e_t where the step's noise is `xi`, whatever z_s carries; arguments as for `matched`."""
    if step + 1 == len(table):
        return xi, _nearest_image(table, z_0, xi)
    n, sigma_s = table.n[step].item(), table.sigma[step + 1].item()
    return xi, (_noise_in(table, step, z_s, z_0) - n * xi) / sigma_s


def matched(table: StepTable, step: int, z_s: Tensor, z_0: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """eps and e_t of eq. (2).

    Args:
        table: the sampler's rows, with a forward process: alpha and sigma of the row after `step` are those of z_s.
        step: which of them.
        z_s: the less noisy latent, float32 or float64 [batch, ...].
        z_0: the clean latent, same shape.
        xi: fresh white noise, same shape.
    """
    if step + 1 == len(table):
        return xi, _nearest_image(table, z_0, xi)
    n = table.n[step].item()
    sigma_s = max(table.sigma[step + 1].item(), abs(n))  # rounding may leave the step a little more than the level has
    d = math.sqrt(sigma_s**2 - n**2)
    e_s = _noise_in(table, step, z_s, z_0) / sigma_s
    return (n * e_s + d * xi) / sigma_s, (d * e_s - n * xi) / sigma_s


def _noise_in(table: StepTable, step: int, z_s: Tensor, z_0: Tensor) -> Tensor:
    """sigma_s e_s."""
    return z_s - table.alpha[step + 1].item() * z_0


def _nearest_image(table: StepTable, z_0: Tensor, xi: Tensor) -> Tensor:
    """e_t of the last step; latents that are not maps have no neighbours, so theirs is noise alone."""
    if len(table) == 1:
        return xi
    noise = _FRESH * xi
    if z_0.ndim != 4:
        return noise
    alpha, sigma = table.alpha[-1].item(), table.sigma[-1].item()
    detail = z_0 - avg_pool2d(z_0, 3, 1, 1, count_include_pad=False)
    return noise + _DETAIL * alpha * sigma / (alpha**2 + sigma**2) * detail
