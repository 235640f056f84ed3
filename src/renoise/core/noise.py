"""The noise of a stochastic step: which noise eps the step uses, and which noise that leaves for the noisier latent.

Let z_s = alpha_s z_0 + sigma_s e_s be the latent at hand.  Its noise e_s is known because z_0 is.  The step that made
z_s (eq. 1 of `renoise.core.table`) kept a part of the noise e_t of z_t and added fresh noise eps,

    sigma_s e_s = d e_t + n eps,                 d^2 + n^2 = sigma_s^2.                                   (1)

For a network that predicts noise the deterministic factor d is a sigma_t + b.  Here d is taken from the second
equation, which holds whatever the network predicts and however latents are scaled.

**Independent** noise, as published, draws eps = xi without regard to e_s.  Then (1) asks of the noisier latent
e_t = (sigma_s e_s - n xi) / d, whose variance (sigma_s^2 + n^2) / d^2 is above 1, so z_T is not distributed like noise.
This module returns e_t = (sigma_s e_s - n xi) / sigma_s instead.  Its variance is 1 + n^2 / sigma_s^2, which stays
moderate when d is small.

**Matched** noise splits e_s instead.  With xi fresh white noise,

    eps = (n e_s + d xi) / sigma_s,              e_t = (d e_s - n xi) / sigma_s.                          (2)

This is a rotation of (e_s, xi): if those are white, with variance 1 and independent of each other, so are eps and e_t.
Both solve (1) exactly.

**The step nearest the image** is special, because there z_s is the image itself and carries no noise.  eps is fresh,
and e_t is chosen such that the network's estimate of the clean latent from alpha z_0 + sigma e_t is close to z_0.  Such
an estimate loses a part of the details.  If the details are Gaussian with variance S, the share that it keeps is
S alpha^2 / (S alpha^2 + sigma^2).  Without any noise in e_t, details enlarged by the inverse of that share come out as
they were.  With noise of full strength in e_t, they come out covered by noise.  The e_t used here is a compromise:
fresh noise at three quarters of its strength, plus the details of z_0 (z_0 minus its mean over 3 x 3 latent pixels)
times 2.4 alpha sigma / (alpha^2 + sigma^2).  In z_t this enlarges the details by a share 2.4 sigma^2 / (alpha^2 +
sigma^2).  The two factors were chosen on validation images.  If the table has this one step only, its z_t is z_T, and
e_t is fresh noise at full strength.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import avg_pool2d

from renoise.core.table import StepTable

__all__ = ["independent", "matched"]

_FRESH, _DETAIL = 0.75, 2.4  # factors of fresh noise and of details in e_t at the step nearest the image


def independent(table: StepTable, step: int, z_s: Tensor, z_0: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """eps = `xi` and the e_t that goes with it.  Arguments and results are those of `matched`."""
    if step + 1 == len(table):
        return xi, _nearest_image(table, z_0, xi)
    n, sigma_s = table.n[step].item(), table.sigma[step + 1].item()
    return xi, (_noise_in(table, step, z_s, z_0) - n * xi) / sigma_s


def matched(table: StepTable, step: int, z_s: Tensor, z_0: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """eps and e_t of eq. (2).

    Args:
        table: the sampler's rows, with a forward process.  The row after `step` holds alpha and sigma of z_s.
        step: row of the table.
        z_s: the less noisy latent, float32 or float64 [batch, ...].
        z_0: the clean latent, same shape.
        xi: fresh white noise, same shape.

    Returns:
        eps and e_t, same shape.
    """
    if step + 1 == len(table):
        return xi, _nearest_image(table, z_0, xi)
    n = table.n[step].item()
    sigma_s = max(table.sigma[step + 1].item(), abs(n))  # by rounding, n may be a little above sigma_s
    d = math.sqrt(sigma_s**2 - n**2)
    e_s = _noise_in(table, step, z_s, z_0) / sigma_s
    return (n * e_s + d * xi) / sigma_s, (d * e_s - n * xi) / sigma_s


def _noise_in(table: StepTable, step: int, z_s: Tensor, z_0: Tensor) -> Tensor:
    """The noise part of z_s: sigma_s e_s = z_s - alpha_s z_0."""
    return z_s - table.alpha[step + 1].item() * z_0


def _nearest_image(table: StepTable, z_0: Tensor, xi: Tensor) -> Tensor:
    """e_t of the step nearest the image.  Token latents have no neighbouring pixels, so they get noise alone."""
    if len(table) == 1:
        return xi
    noise = _FRESH * xi
    if z_0.ndim != 4:
        return noise
    alpha, sigma = table.alpha[-1].item(), table.sigma[-1].item()
    detail = z_0 - avg_pool2d(z_0, 3, 1, 1, count_include_pad=False)
    return noise + _DETAIL * alpha * sigma / (alpha**2 + sigma**2) * detail
