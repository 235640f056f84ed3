"""Solve one sampler step for its noisier latent: renoising, and its acceleration.

The step z_s = a z_t + b m(z_t) + n eps, read backwards, is an implicit equation for z_t (eq. 2 of `table`), a fixed
point of

    g(z) = (z_s - b m(z) - n eps) / a,            residual f(z) = g(z) - z.

**Renoising** (Garibi et al., ECCV 2024, sec. 3.2) iterates it.  Pass k = 0..K asks for the network's prediction m_k at
z^(k), and the next estimate is z^(k+1) = g(z^(k)), which nears the solution where |b / a| ||dm/dz|| < 1; nothing
promises that, so the residuals are handed back.  K = 0 is plain sampler reversing.  With weights w_k the step ends on
the weighted mean of the predictions instead of the last (sec. 3.3), which damps estimates that circle the solution:
z_t = (z_s - b sum_k w_k m_k - n eps) / a.

**Anderson acceleration** (Anderson, J. ACM 1965; Walker and Ni, SIAM J. Numer. Anal. 2011) combines the best points so
far such that their residuals cancel as far as they can, for each image on its own:

    z^(k+1) = sum_j theta_j (z_j + beta f_j),
    theta = argmin ||sum_j theta_j f_j||^2 + mu sum_j theta_j^2 ||f_j||^2      with      sum_j theta_j = 1.

It costs no further pass.  The small mu keeps residuals that are nearly parallel from amplifying rounding; it weighs
each with its own length, because a share of their mean would drown the short ones, which are the best known.

beta is the step length that would have been best one pass before (Barzilai and Borwein, IMA J. Numer. Anal. 1988): a
step beta r along the combined residual r has shortened it by c, so the best one along it was beta <r, c> / <c, c>.  A
denoiser answers to what it takes for noise, as in an empty background, far less than to what it takes for picture, so
on maps the products are those of each pixel's neighbourhood: one short step is not made to fit all of them.  That is
worth 1 dB at 20 passes of latent consistency sampling.

A solver is a generator: it yields the latent at which it wants a prediction, is sent that prediction, and so on for
ever.  It knows neither the network nor the loop over the steps, nor when to stop: the point that it would ask about
next is its estimate.  `solve` runs one for so many passes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["SOLVERS", "Solution", "Solver", "anderson", "renoise", "solve"]

Solver = Callable[[Callable[[Tensor], Tensor], Tensor], Generator[Tensor, Tensor, None]]
"""From `reverse` and `start` to a generator, as `renoise` and `anderson` below."""

_RIDGE = 1e-6  # mu
_LENGTHS = (0.25, 3.0)  # of beta; longer steps overshoot where the network is not nearly linear
_NEIGHBOURHOOD = 5  # side, in latent pixels


@dataclass(frozen=True, eq=False)
class Solution:
    """One step solved for a batch of images.

    Attributes:
        estimate: z_t [batch, ...], where the next pass would have asked; not evaluated.
        nearest: of the points at which a prediction was asked for, that of the smallest residual, per image.
        prediction: the network's at `nearest`, same shape.
        residuals: [pass, batch], RMS over an image's numbers of f at each point asked about.  An image that was done
            before the others of its batch keeps its last one.
        passes: predictions asked for, for the image that took the most.
    """

    estimate: Tensor
    nearest: Tensor
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
    """Yields estimates z^(k) [batch, ...]; expects the network's predictions at them, same shape.

    Args:
        reverse: from a prediction m to (z_s - b m - n eps) / a.
        start: z^(0) [batch, ...]; in the published method z_s.
        weights: one per pass, numbers of 0 or more with a positive sum, normalised here: the estimate after that many
            passes is made of their mean, and the generator ends there.  None goes by the last prediction, for ever.
        nudge: moves a prediction towards white noise (the edit losses).  As in the published experiments, a prediction
            that enters the mean is nudged before it drives the next pass, the mean is made of predictions that are not,
            and is nudged once itself.  Not used without weights.
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
    """Yields points z^(k) [batch, ...]; expects the network's predictions at them, same shape.

    Args:
        reverse: from a prediction m to (z_s - b m - n eps) / a.
        start: z^(0) [batch, ...].
        depth: how many points are combined at most, 2 or more: the latest, and the best of those before.
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
"""The solvers that settings know by name."""


def solve(
    solver: Generator[Tensor, Tensor, None], reverse: Callable[[Tensor], Tensor], *, passes: int, tol: float = 0.0
) -> Generator[tuple[Tensor, Tensor | None], Tensor, Solution]:
    """Run a solver: yields where it wants predictions, expects them, returns the solution.

    What it yields are latents [batch, ...], and which images [batch] of them are still waiting; None for all.  What is
    answered for the others is not read.

    Args:
        solver: started, such as those of the two functions above.
        reverse: what the solver was given.
        passes: how many predictions to ask for at most, 1 or more.
        tol: an image is done, and leaves, when its residual is at most this share of the RMS of its latent.
    """
    z = nearest = next(solver)
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
        nearer = (~done & (size < smallest)).view(each)
        nearest, prediction = torch.where(nearer, z, nearest), torch.where(nearer, m, prediction)
        smallest = torch.minimum(size, smallest)
        following = solver.send(m)
        if tol:
            following, done = torch.where(done.view(each), z, following), done | (size <= tol * _rms(z))
        z = following
    return Solution(z, nearest, prediction, torch.stack(residuals), len(residuals))


def _cancelling(residuals: Tensor) -> Tensor:
    """theta [batch, point] of residuals [batch, point, number], in float64 because products square the range."""
    f = (residuals.cpu() if residuals.device.type == "mps" else residuals).double()  # Apple's GPUs have no float64
    lengths = f.norm(dim=2, keepdim=True).clamp_min(1e-100)  # a residual may be 0
    f = f / lengths
    shares = lengths.amin(1, keepdim=True) / lengths  # [batch, point, 1], of unknowns measured in these lengths
    products = f @ f.mT + _RIDGE * torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
    theta = (shares * torch.linalg.solve(products, shares)).squeeze(2)
    weights: Tensor = theta / theta.sum(1, keepdim=True)
    return weights.to(residuals)


def _nearby(products: Tensor) -> Tensor:
    """Mean of each pixel's neighbourhood over all channels, of maps [batch, channel, height, width]; else the image's.

    Shape [batch, 1, height, width], or [batch, 1, ...].
    """
    if products.ndim != 4:
        return products.mean(tuple(range(1, products.ndim)), keepdim=True)
    side = _NEIGHBOURHOOD
    return avg_pool2d(products.mean(1, keepdim=True), side, 1, side // 2, count_include_pad=False)


def _rms(z: Tensor) -> Tensor:
    """Root mean square of each image [batch]."""
    return z.flatten(1).square().mean(1).sqrt()
