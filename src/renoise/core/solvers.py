"""Solve one sampler step for its noisier latent: renoising, and an accelerated version of it.

Read backwards, the step z_s = a z_t + b m(z_t) + n eps is an implicit equation for z_t (eq. 2 of
`renoise.core.table`).  Its solution is a fixed point of

    g(z) = (z_s - b m(z) - n eps) / a,            residual f(z) = g(z) - z.

**Renoising** (Garibi et al., ECCV 2024, sec. 3.2) iterates g.  Pass k = 0..K asks for the network's prediction m_k at
z^(k), and the next estimate is z^(k+1) = g(z^(k)).  It comes closer to the solution if |b / a| ||dm/dz|| < 1.  That is
not guaranteed, so the residuals are returned too.  K = 0 is plain sampler reversing.  With weights w_k the final
estimate uses the weighted mean of the predictions instead of the last one (sec. 3.3), which helps if the estimates
circle the solution: z_t = (z_s - b sum_k w_k m_k - n eps) / a.

**Anderson acceleration** (Anderson, J. ACM 1965; Walker and Ni, SIAM J. Numer. Anal. 2011) combines the best points so
far such that their residuals cancel as far as possible, for each image on its own:

    z^(k+1) = sum_j theta_j (z_j + beta f_j),
    theta = argmin ||sum_j theta_j f_j||^2 + mu sum_j theta_j^2 ||f_j||^2      with      sum_j theta_j = 1.

It costs no further pass.  The small mu limits rounding errors if residuals are nearly parallel.  It is multiplied by
the squared length of each residual, because one value for all would be too large for the short residuals, which belong
to the best points.

beta is the step length that would have been best one pass before (Barzilai and Borwein, IMA J. Numer. Anal. 1988).  A
step beta r along the combined residual r has changed r by -c, so the best step along r was beta <r, c> / <c, c>.  A
network reacts much less to what it takes for noise, as in an empty background, than to what it takes for content of the
image, so one step length does not suit all pixels.  On maps the products are therefore taken over the neighbourhood of
each pixel.

A solver is a generator.  It yields the latent at which it wants a prediction, is sent that prediction, and goes on
without end.  The point that it would ask about next is its estimate.  It knows neither the network nor the loop over
the steps, nor when to stop.  `solve` runs a solver for a number of passes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["SOLVERS", "Solution", "Solver", "anderson", "renoise", "solve"]

Solver = Callable[[Callable[[Tensor], Tensor], Tensor], Generator[Tensor, Tensor, None]]
"""A function of `reverse` and `start` that returns a generator, such as `renoise` and `anderson` below."""

_RIDGE = 1e-6  # mu
_LENGTHS = (0.25, 2.0)  # range of beta: longer steps overshoot where the network is not nearly linear
_NEIGHBOURHOOD = 5  # side of a pixel's neighbourhood, in latent pixels


@dataclass(frozen=True, eq=False)
class Solution:
    """One step solved for a batch of images.

    Attributes:
        estimate: z_t [batch, ...], the point about which the next pass would have asked.  It is not evaluated.
        best: of the evaluated points, the one with the smallest residual, per image [batch, ...].
        prediction: the network's prediction at `best`, same shape.
        residuals: [pass, batch], RMS of f over the numbers of an image at each evaluated point.  An image that was
            done before the others of its batch repeats its last value.
        passes: number of predictions that were asked for, for the image that took the most.
    """

    estimate: Tensor
    best: Tensor
    prediction: Tensor
    residuals: Tensor
    passes: int


def renoise(
    reverse: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    weights: tuple[float, ...] | None = None,
    nudge: Callable[[Tensor], Tensor] | None = None,
) -> Generator[Tensor, Tensor, None]:
    """Renoising: yields estimates z^(k) [batch, ...] and is sent the predictions at them, same shape.

    Args:
        reverse: function from a prediction m to (z_s - b m - n eps) / a.
        start: z^(0) [batch, ...], which is z_s in the published method.
        weights: one per pass, 0 or more with a positive sum, normalised here.  After that many passes the estimate is
            made from the weighted mean of the predictions, and the generator ends.  None always uses the last
            prediction, and the generator does not end.
        nudge: function that moves a prediction towards white noise (the edit losses).  Not used without weights.  As in
            the published experiments, a prediction with a weight above 0 is nudged before it gives the next estimate.
            The mean is taken over predictions that are not nudged, and is then nudged once itself.
    """
    z = start
    if weights is None:
        while True:
            z = reverse((yield z))
    mean = torch.zeros_like(start)
    for k, weight in enumerate(weights):
        m = yield z
        share = weight / sum(weights)
        if share > 0:
            mean = mean + share * m
        last = k == len(weights) - 1
        if last:
            m = mean
        if nudge and (share > 0 or last):
            m = nudge(m)
        z = reverse(m)
    yield z


def anderson(reverse: Callable[[Tensor], Tensor], start: Tensor, *, depth: int = 5) -> Generator[Tensor, Tensor, None]:
    """Anderson acceleration: yields points z^(k) [batch, ...] and is sent the predictions at them, same shape.

    Args:
        reverse: function from a prediction m to (z_s - b m - n eps) / a.
        start: z^(0) [batch, ...].
        depth: how many points are combined at most, 2 or more: the latest, and the best ones before it.
    """
    points = residuals = start[:, None][:, :0]  # [batch, point, ...]
    combined, beta = torch.zeros_like(start), torch.ones_like(start)
    z = start
    while True:
        f = reverse((yield z)) - z
        if points.shape[1]:
            shortened = combined - f
            length = beta * _nearby(combined * shortened) / _nearby(shortened.square()).clamp_min(1e-30)
            beta = length.clamp(*_LENGTHS)
        points, residuals = torch.cat((points, z[:, None]), 1), torch.cat((residuals, f[:, None]), 1)
        if points.shape[1] > depth:
            lengths = residuals[:, :-1].flatten(2).norm(dim=2)
            kept = torch.arange(depth + 1, device=z.device) != lengths.argmax(1, keepdim=True)
            points, residuals = (known[kept].reshape(-1, depth, *known.shape[2:]) for known in (points, residuals))
        theta = _cancelling(residuals.flatten(2)).view(*points.shape[:2], *[1] * (start.ndim - 1))
        combined = (theta * residuals).sum(1)
        z = (theta * points).sum(1) + beta * combined


SOLVERS: dict[str, Solver] = {"renoise": renoise, "anderson": anderson}
"""The solvers that settings may name."""


def solve(
    solver: Generator[Tensor, Tensor, None], reverse: Callable[[Tensor], Tensor], *, passes: int, tol: float = 0.0
) -> Generator[tuple[Tensor, Tensor | None], Tensor, Solution]:
    """Run a solver for a number of passes.

    Yields the latents [batch, ...] at which a prediction is needed, and which images still wait for one (bool [batch],
    or None for all).  Is sent the predictions [batch, ...]; those of images that do not wait are not read.

    Args:
        solver: a generator as the two functions above return it.
        reverse: the function that the solver was given.
        passes: how many predictions to ask for at most, 1 or more.
        tol: an image is done when its residual is at most this share of the RMS of its latent.  0.0 turns this off.

    Returns:
        A generator that returns the solution.
    """
    z = best = next(solver)
    m = prediction = torch.zeros_like(z)
    smallest = z.new_full(z.shape[:1], torch.inf)
    done = torch.zeros_like(smallest, dtype=torch.bool)
    residuals: list[Tensor] = []
    each = (-1, *[1] * (z.ndim - 1))
    while len(residuals) < passes and not (tol and done.all()):
        if tol and done.any():
            m = torch.where(done.view(each), m, (yield z, ~done))
            size = torch.where(done, residuals[-1], _rms(reverse(m) - z))
        else:
            m = yield z, None
            size = _rms(reverse(m) - z)
        residuals.append(size)
        better = (~done & (size < smallest)).view(each)
        best, prediction = torch.where(better, z, best), torch.where(better, m, prediction)
        smallest = torch.minimum(size, smallest)
        following = solver.send(m)
        if tol:
            following, done = torch.where(done.view(each), z, following), done | (size <= tol * _rms(z))
        z = following
    return Solution(z, best, prediction, torch.stack(residuals), len(residuals))


def _cancelling(residuals: Tensor) -> Tensor:
    """theta [batch, point] for residuals [batch, point, number].  In float64, because products square the range."""
    f = (residuals.cpu() if residuals.device.type == "mps" else residuals).double()  # Apple's GPUs have no float64
    lengths = f.norm(dim=2, keepdim=True).clamp_min(1e-100)  # a residual may be 0
    f = f / lengths
    shares = lengths.amin(1, keepdim=True) / lengths  # [batch, point, 1]; the unknowns below are theta times length
    products = f @ f.mT + _RIDGE * torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
    theta = (shares * torch.linalg.solve(products, shares)).squeeze(2)
    weights: Tensor = theta / theta.sum(1, keepdim=True)
    return weights.to(residuals)


def _nearby(products: Tensor) -> Tensor:
    """Mean over each pixel's neighbourhood and all channels, for maps [batch, channel, height, width].

    For latents of another shape it is the mean over the whole image.

    Returns:
        [batch, 1, height, width], or [batch, 1, ...] with sides of 1.
    """
    if products.ndim != 4:
        return products.mean(tuple(range(1, products.ndim)), keepdim=True)
    side = _NEIGHBOURHOOD
    return avg_pool2d(products.mean(1, keepdim=True), side, 1, side // 2, count_include_pad=False)


def _rms(z: Tensor) -> Tensor:
    """Root mean square over the numbers of each image [batch]."""
    return z.flatten(1).square().mean(1).sqrt()
