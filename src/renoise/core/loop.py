"""The loops over the steps: from a clean latent to noise, and back.

`invert` walks a sampler's table from the image to the noise and solves each step for its noisier latent (see
`renoise.core.solvers`).  `replay` walks the table forward again.  Both are generators: they yield a `Query`, are sent
the network's prediction for it, and return their result.  So they work with a plain function (`drive`), with a
pipeline's own loop, and with a formula in a test.  A step of `invert` makes these queries, in this order:

* the points of its solver, as many as `renoise.core.budget` allows.  If the edit losses are on, the first query also
  asks for their target: the prediction at the clean latent noised to this step's level;
* if the step draws noise and the settings ask for correction, one more pass at the solution.  The noise of the step
  moves towards the residual noise there (see `renoise.core.correction`), and the solution stays.

Absorption needs no extra pass: the evaluated point with the smallest residual becomes z_t, and the noise moves towards
its residual.  Solver, start, noise, budget and absorption are separate settings that can be combined freely.

Latents are float32 or float64 in loop space, and predictions are converted to the dtype of the latents.  Each image of
a batch is treated on its own, no argument is changed, and no random numbers are drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from renoise.core.budget import budget, check_keeping
from renoise.core.correction import correct, travel, whiteness
from renoise.core.edit_losses import check_growth, enhance
from renoise.core.extrapolation import extrapolated
from renoise.core.noise import independent, matched
from renoise.core.query import Denoiser, Query
from renoise.core.settings import Settings
from renoise.core.solvers import SOLVERS, Solution, renoise, solve
from renoise.core.table import StepTable
from renoise.core.trajectory import StepReport, Trajectory

__all__ = ["ask", "count_passes", "drive", "invert", "replay"]

_Result = TypeVar("_Result")
_NOISE = {"independent": independent, "matched": matched}


@torch.no_grad()
def invert(
    table: StepTable,
    z_0: Tensor,
    *,
    settings: Settings,
    noises: Tensor | None = None,
    forward_noise: Tensor | None = None,
    rolls: Callable[[tuple[int, ...]], Tensor] | None = None,
    keep_latents: bool = False,
) -> Generator[Query, Tensor, Trajectory]:
    """Find the noise from which the sampler makes `z_0`.

    Args:
        table: the sampler's rows.
        z_0: clean latent in loop space, float32 or float64 [batch, ...].
        settings: everything but the number of steps and the guidance scales is read.
        noises: white noise [step, batch, ...], noisiest step first.  Needed by a sampler that draws noise.
        forward_noise: white noise [batch, ...] for the target of the edit losses.  Needed if lambda_kl > 0.
        rolls: function from the shape of the maps to the rolls of one call of the edit losses, in the layout of
            `renoise.core.rolls.draw_rolls`.  Needed if lambda_pair > 0.
        keep_latents: whether the trajectory keeps the latents of every step instead of the noisiest only.

    Returns:
        A generator of queries that returns the trajectory.

    Raises:
        ValueError: something needed is missing or has another shape, or a prediction is not finite.
    """
    _check(table, z_0, noises)
    if settings.method is not None:
        check_keeping(settings, keep_latents)
        return (yield from settings.method(table, z_0, noises))
    losses = settings.edit_losses
    _check_levels(table, settings)
    if losses and losses.lambda_kl and (forward_noise is None or forward_noise.shape != z_0.shape):
        raise ValueError(f"lambda_kl={losses.lambda_kl} noises the clean latent: pass forward_noise {list(z_0.shape)}")
    if losses and losses.lambda_pair and rolls is None:
        raise ValueError(f"lambda_pair={losses.lambda_pair} needs rolls: pass rolls=, a function that draws them")
    target_noise = forward_noise.to(z_0) if forward_noise is not None else None
    used = list(noises.to(z_0).unbind()) if noises is not None and table.stochastic else None
    passes = budget(table, settings)
    predictions: list[Tensor] = []
    reports: list[StepReport] = []
    latents: list[Tensor] = []
    z = z_0
    for step in reversed(range(len(table))):
        noise, left = _NOISE[settings.noise](table, step, z, z_0, used[step]) if used else (None, None)
        reverse = partial(table.backward, step, z, noise=noise)
        start = z
        if settings.start == "expected" and left is not None:
            start = table.noisy(step, z_0, left)
        elif settings.start == "expected" and predictions:
            start = reverse(extrapolated(table, step, predictions))
        noised = None
        if target_noise is not None and _wants_target(table, step, settings):
            noised = table.noisy(step, z_0, target_noise)
        solution = yield from _solve(table, step, settings, passes[step], reverse, start, noised, rolls)
        predictions = [*predictions[-1:], solution.prediction]
        cost = solution.passes + (noised is not None)
        report = StepReport(step, float(table.timesteps[step]), table.level(step), cost, solution.residuals)
        z_t = solution.estimate
        if used and noise is not None and table.n[step] != 0:
            z_t, used[step], report = yield from _move_noise(table, settings, z, noise, solution, report)
        reports.insert(0, report)
        z = z_t
        if keep_latents:
            latents.insert(0, z)
    return Trajectory(
        table=table,
        z_T=z,
        noises=torch.stack(used) if used else None,
        steps=tuple(reports),
        passes=sum(report.passes for report in reports),
        step_latents=torch.stack(latents) if latents else None,
    )


@torch.no_grad()
def replay(
    table: StepTable,
    z_T: Tensor,  # noqa: N803 - the letters of the paper
    noises: Tensor | None = None,
) -> Generator[Query, Tensor, Tensor]:
    """Run the sampler from `z_T` with the given noise.

    Args:
        table: the sampler's rows.
        z_T: noisiest latent in loop space, float32 or float64 [batch, ...].
        noises: [step, batch, ...], noisiest step first.  Needed by a sampler that draws noise.

    Returns:
        A generator of queries that returns the clean latent [batch, ...] in loop space.

    Raises:
        ValueError: the noise is missing or has another shape, or a prediction is not finite.
    """
    _check(table, z_T, noises)
    z = z_T
    for step in range(len(table)):
        m = yield from ask(z, step)
        z = table.forward(step, z, m, None if noises is None else noises[step].to(z))
    return z


def drive(
    generator: Generator[Query, Tensor, _Result],
    denoise: Denoiser,
    on_pass: Callable[[int], object] | None = None,
) -> _Result:
    """Run `invert` or `replay` to its end and answer its queries with `denoise`.

    Args:
        generator: as returned by `invert` or `replay`.
        denoise: answers a query with the prediction, in the shape of its latents.
        on_pass: called after each query with the passes that it took per image.  An exception from it ends the run.

    Returns:
        What the generator returns.
    """
    with torch.no_grad():
        try:
            query = next(generator)
            while True:
                answer = query.answer(denoise)
                if on_pass:
                    on_pass(query.passes)
                query = generator.send(answer)
        except StopIteration as stop:
            result: _Result = stop.value
            return result


def count_passes(table: StepTable, settings: Settings) -> int:
    """Network passes per image that `invert` will take, such as for a progress bar.  With a tolerance, at most."""
    if settings.method is not None:
        return settings.passes or len(table)
    total = sum(budget(table, settings))
    for step in range(len(table)):
        total += _wants_target(table, step, settings) + (settings.correction > 0 and bool(table.n[step] != 0))
    return total


def _wants_target(table: StepTable, step: int, settings: Settings) -> bool:
    losses, weights = settings.edit_losses, settings.region(table.level(step)).weights
    return weights is not None and losses is not None and losses.lambda_kl > 0


def _solve(
    table: StepTable,
    step: int,
    settings: Settings,
    passes: int,
    reverse: Callable[[Tensor], Tensor],
    start: Tensor,
    noised: Tensor | None,
    rolls: Callable[[tuple[int, ...]], Tensor] | None,
) -> Generator[Query, Tensor, Solution]:
    """Run the solver of one step.  The first query also asks for the edit losses' target, at the latent `noised`."""
    losses = settings.edit_losses
    target: Tensor | None = None

    def nudge(prediction: Tensor) -> Tensor:
        assert losses is not None
        drawn = rolls(tuple(prediction.shape)) if losses.lambda_pair and rolls else None
        lambdas = {"lambda_pair": losses.lambda_pair, "lambda_kl": losses.lambda_kl}
        enhanced = enhance(prediction, target, **lambdas, steps=losses.steps, rolls=drawn)
        check_growth(prediction, enhanced, step, **lambdas)
        return enhanced

    if settings.solver == "renoise":
        weights = settings.region(table.level(step)).weights
        solver = renoise(reverse, start, weights=weights, nudge=nudge if losses else None)
    else:
        solver = (SOLVERS[settings.solver] if isinstance(settings.solver, str) else settings.solver)(reverse, start)
    points = solve(solver, reverse, passes=passes, tol=settings.tol)
    z, waiting = next(points)
    try:
        if noised is not None:
            both = yield from ask(torch.cat((noised, z)), step, scenes=(0, 0))
            target, m = both.chunk(2)
            z, waiting = points.send(m)
        while True:
            m = yield from ask(z, step, waiting=waiting)
            z, waiting = points.send(m)
    except StopIteration as stop:
        solution: Solution = stop.value
        return solution


def _move_noise(
    table: StepTable, settings: Settings, z_s: Tensor, noise: Tensor, solution: Solution, report: StepReport
) -> Generator[Query, Tensor, tuple[Tensor, Tensor, StepReport]]:
    """Correction or absorption, if the settings ask for it: returns z_t, the noise of the step, and its report."""
    step, z_t, m = report.step, solution.estimate, None
    if settings.absorption:
        z_t, m = solution.best, solution.prediction
    elif settings.correction:
        m = yield from ask(z_t, step)
        report = replace(report, passes=report.passes + 1)
    if m is not None:
        residual = table.residual_noise(step, z_s, z_t, m)
        drawn, noise = noise, correct(noise, residual, bound=settings.absorption or settings.correction)
        report = replace(report, noise_travel=travel(drawn, noise))
    elif settings.noise == "independent":
        return z_t, noise, report
    if noise.ndim == 4 and min(noise.shape[-2:]) > 1:
        white = whiteness(noise)
        report = replace(report, noise_std=white.std, noise_correlation=white.neighbour)
    return z_t, noise, report


def ask(
    z: Tensor, step: int, scenes: tuple[int, ...] = (0,), waiting: Tensor | None = None
) -> Generator[Query, Tensor, Tensor]:
    """Make one query and check its answer."""
    m = yield Query(z, step, scenes, waiting)
    if m.shape != z.shape:
        raise ValueError(f"the prediction is {list(m.shape)} for latents {list(z.shape)}: return one of the same shape")
    if not (m if waiting is None else m[waiting]).isfinite().all():
        raise ValueError(
            f"the network's prediction at step {step} is not finite: the network overflows in this precision, or the "
            "latents have grown too large; load the pipeline with dtype=torch.float32, or lower the guidance"
        )
    return m.to(z)


def _check_levels(table: StepTable, settings: Settings) -> None:
    for name, value, otherwise in (("noise", "matched", "independent"), ("start", "expected", "previous")):
        if getattr(settings, name) == value and not table.alpha.isfinite().all():
            raise ValueError(
                f"{name}={value!r} needs the noise level of every latent, and this scheduler does not tell it, because "
                f"it has no forward process (add_noise or scale_noise): pass {name}={otherwise!r}"
            )


def _check(table: StepTable, z: Tensor, noises: Tensor | None) -> None:
    if z.dtype not in (torch.float32, torch.float64) or z.ndim < 2:
        raise ValueError(
            f"latents are {z.dtype} {list(z.shape)}: pass float32 or float64 [batch, ...]; half precision loses the "
            "small differences that an inversion depends on (the network may still run in half precision)"
        )
    if noises is None and table.stochastic:
        raise ValueError("this sampler draws noise: pass noises [step, batch, ...], noisiest step first")
    if noises is not None and noises.shape != (len(table), *z.shape):
        raise ValueError(
            f"noises are {list(noises.shape)} for {len(table)} steps of latents {list(z.shape)}: pass one noise per "
            f"step and image, {[len(table), *z.shape]}"
        )
