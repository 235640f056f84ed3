"""The loop over the steps: from a clean latent to noise, and back.

`invert` walks a sampler's table from the image to the noise, solving each step for its noisier latent (`solvers`), and
`replay` walks it forward again.  Both are generators: they yield a `Query`, are sent the network's prediction for it,
and return their result, so they run behind a plain function (`drive`), a pipeline's own loop or a test alike.  A step
of `invert` queries, in this order,

* one pass per renoising iteration and one more.  The first also asks for the prediction at the clean latent noised to
  this step's level, where the edit losses are on: their target;
* for a step that draws noise and is to be corrected, one pass at the solution, whose residual noise (`correction`) the
  noise moves towards.  The solution itself stays.

Latents are float32 or float64 in loop space; predictions are brought to the latents' dtype.  The images of a batch
never meet.  Nothing passed in is changed, and no random numbers are drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from renoise.correction import correct, travel, whiteness
from renoise.enhance import enhance
from renoise.presets import EditLosses, Region, Settings
from renoise.schedule import StepTable
from renoise.solvers import Solution, renoise

__all__ = ["Query", "StepReport", "Trajectory", "count_passes", "drive", "invert", "replay"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Query:
    """A question for the network: its prediction m at these latents, guidance included, in their shape.

    Attributes:
        z: [copies * batch, ...] in loop space, before the input scale: `copies` blocks of the whole batch.
        step: row of the table, which gives timestep and input scale.
        copies: passes that this query costs each image: 2 where the target of the edit losses (the first block) is
            asked for beside the estimate, else 1.
    """

    z: Tensor
    step: int
    copies: int = 1


@dataclass(frozen=True, eq=False)
class StepReport:
    """How one step of an inversion went.

    Attributes:
        step: row of the table.
        timestep: of that row.
        level: its noise level, timestep / num_train_timesteps.
        passes: what the step cost each image, target and correction included.
        residuals: [pass, batch], RMS change of the estimate by each pass of the solver; see `solvers.Solution`.
        noise_travel: [batch], how far correction moved the noise, in L2 over sqrt(dim); None where it did not run.
        noise_std: [batch], standard deviation of the corrected noise, 1 when white; None likewise, and for latents that
            are not [batch, channel, height, width].
        noise_correlation: [batch], correlation of its adjacent pixels, 0 when white; None likewise.
    """

    step: int
    timestep: float
    level: float
    passes: int
    residuals: Tensor
    noise_travel: Tensor | None = None
    noise_std: Tensor | None = None
    noise_correlation: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What an inversion found.

    Attributes:
        z_T: the noisiest latent [batch, ...].
        noises: [step, batch, ...], noisiest step first, the noise with which `replay` is to run: the one given,
            corrected where the settings say so; None for a deterministic sampler.
        steps: reports, noisiest step first.
        passes: network passes per image.
    """

    z_T: Tensor  # noqa: N815 - the letters of the paper
    noises: Tensor | None
    steps: tuple[StepReport, ...]
    passes: int


@torch.no_grad()
def invert(
    table: StepTable,
    z_0: Tensor,
    *,
    settings: Settings,
    noises: Tensor | None = None,
    forward_noise: Tensor | None = None,
    rolls: Callable[[tuple[int, ...]], Tensor] | None = None,
) -> Generator[Query, Tensor, Trajectory]:
    """Find the noise from which the sampler makes `z_0`.

    Args:
        table: the sampler's rows.
        z_0: clean latent in loop space, float32 or float64 [batch, ...].
        settings: regions, edit losses and correction are read.
        noises: white noise [step, batch, ...], noisiest step first; needed by a sampler that draws noise.
        forward_noise: white noise [batch, ...] of the edit losses' target; needed where lambda_kl > 0.
        rolls: returns the rolls of one call of the edit losses for maps of a given shape, laid out as by
            `enhance.draw_rolls`; needed where lambda_pair > 0.

    Raises:
        ValueError: something needed is missing or of another shape, or a prediction that is not finite.
    """
    losses = settings.edit_losses
    _check(table, z_0, noises)
    if losses and losses.lambda_kl and (forward_noise is None or forward_noise.shape != z_0.shape):
        raise ValueError(f"lambda_kl={losses.lambda_kl} noises the clean latent: pass forward_noise {list(z_0.shape)}")
    if losses and losses.lambda_pair and rolls is None:
        raise ValueError(f"lambda_pair={losses.lambda_pair} rolls maps: pass rolls, a function that draws them")
    aim = forward_noise.to(z_0) if forward_noise is not None else None
    drawn = noises.to(z_0) if noises is not None and table.stochastic else None
    kept = list(drawn.unbind()) if drawn is not None else []
    reports = []
    z = z_0
    for step in reversed(range(len(table))):
        region = settings.region(table.level(step))
        noise = kept[step] if kept else None
        noised = table.noisy(step, z_0, aim) if aim is not None and _wants_target(settings, region) else None
        solution = yield from _solve(table, step, z, noise, region, losses, noised, rolls)
        passes = solution.passes + (noised is not None)
        report = StepReport(step, float(table.timesteps[step]), table.level(step), passes, solution.residuals)
        if noise is not None and _wants_correction(table, step, settings):
            m = yield from _ask(solution.estimate, step)
            residual = table.residual_noise(step, z, solution.estimate, m)
            kept[step] = correct(noise, residual, bound=settings.correction)
            report = _corrected_report(report, noise, kept[step])
        reports.append(report)
        z = solution.estimate
    return Trajectory(
        z_T=z,
        noises=torch.stack(kept) if kept else None,
        steps=tuple(reversed(reports)),
        passes=sum(report.passes for report in reports),
    )


@torch.no_grad()
def replay(
    table: StepTable,
    z_T: Tensor,  # noqa: N803 - the letters of the paper
    noises: Tensor | None = None,
) -> Generator[Query, Tensor, Tensor]:
    """Run the sampler from `z_T` with the given noise; returns the clean latent.

    Args:
        table: the sampler's rows.
        z_T: noisiest latent in loop space, float32 or float64 [batch, ...].
        noises: [step, batch, ...], noisiest step first; needed by a sampler that draws noise.

    Raises:
        ValueError: noise that is missing or of another shape, or a prediction that is not finite.
    """
    _check(table, z_T, noises)
    z = z_T
    for step in range(len(table)):
        m = yield from _ask(z, step)
        z = table.forward(step, z, m, None if noises is None else noises[step].to(z))
    return z


def drive(
    generator: Generator[Query, Tensor, _Result],
    denoise: Callable[[Query], Tensor],
    on_pass: Callable[[int], None] | None = None,
) -> _Result:
    """Run `invert` or `replay` to its end, answering its queries with `denoise`.

    Args:
        generator: as returned by `invert` or `replay`.
        denoise: returns the prediction for a query, in the shape of its latents.
        on_pass: called after each query with the passes it cost each image, 1 or 2.

    Returns:
        What the generator returns.
    """
    with torch.no_grad():
        try:
            query = next(generator)
            while True:
                answer = denoise(query)
                if on_pass:
                    on_pass(query.copies)
                query = generator.send(answer)
        except StopIteration as stop:
            result: _Result = stop.value
            return result


def count_passes(table: StepTable, settings: Settings) -> int:
    """Network passes per image that `invert` will take: the total of a progress bar."""
    total = 0
    for step in range(len(table)):
        region = settings.region(table.level(step))
        total += region.iterations + 1 + _wants_target(settings, region) + _wants_correction(table, step, settings)
    return total


def _wants_target(settings: Settings, region: Region) -> bool:
    return region.weights is not None and settings.edit_losses is not None and settings.edit_losses.lambda_kl > 0


def _wants_correction(table: StepTable, step: int, settings: Settings) -> bool:
    return settings.correction > 0 and bool(table.n[step] != 0)


def _solve(
    table: StepTable,
    step: int,
    z_s: Tensor,
    noise: Tensor | None,
    region: Region,
    losses: EditLosses | None,
    noised: Tensor | None,
    rolls: Callable[[tuple[int, ...]], Tensor] | None,
) -> Generator[Query, Tensor, Solution]:
    """Run the solver of one step; its first pass takes `noised`, the latent of the edit losses' target, along."""
    target: Tensor | None = None

    def nudge(prediction: Tensor) -> Tensor:
        assert losses is not None
        return enhance(
            prediction,
            target,
            lambda_pair=losses.lambda_pair,
            lambda_kl=losses.lambda_kl,
            steps=losses.steps,
            rolls=rolls(tuple(prediction.shape)) if losses.lambda_pair and rolls else None,
        )

    solver = renoise(
        table,
        step,
        z_s,
        noise,
        iterations=region.iterations,
        weights=region.weights,
        nudge=nudge if losses else None,
    )
    z = next(solver)
    try:
        if noised is not None:
            both = yield from _ask(torch.cat((noised, z)), step, copies=2)
            target, m = both.chunk(2)
            z = solver.send(m)
        while True:
            m = yield from _ask(z, step)
            z = solver.send(m)
    except StopIteration as stop:
        solution: Solution = stop.value
        return solution


def _ask(z: Tensor, step: int, copies: int = 1) -> Generator[Query, Tensor, Tensor]:
    """Put one query and check its answer."""
    m = yield Query(z, step, copies)
    if m.shape != z.shape:
        raise ValueError(f"the prediction is {list(m.shape)} for latents {list(z.shape)}: return one per latent row")
    if not m.isfinite().all():
        raise ValueError(
            f"the network's prediction at step {step} is not finite: it overflows in this precision, or the latents "
            "left its range; load the pipeline with dtype=torch.float32, or lower the guidance"
        )
    return m.to(z)


def _corrected_report(report: StepReport, noise: Tensor, corrected: Tensor) -> StepReport:
    image_like = noise.ndim == 4 and min(noise.shape[-2:]) > 1
    white = whiteness(corrected) if image_like else None
    return StepReport(
        report.step,
        report.timestep,
        report.level,
        report.passes + 1,
        report.residuals,
        noise_travel=travel(noise, corrected),
        noise_std=white.std if white else None,
        noise_correlation=white.neighbour if white else None,
    )


def _check(table: StepTable, z: Tensor, noises: Tensor | None) -> None:
    if z.dtype not in (torch.float32, torch.float64) or z.ndim < 2:
        raise ValueError(
            f"latents are {z.dtype} {list(z.shape)}: pass float32 or float64 [batch, ...]; half precision loses the "
            "small differences that inversion is about, whatever the network runs in"
        )
    if noises is None and table.stochastic:
        raise ValueError("this sampler draws noise: pass noises [step, batch, ...], noisiest step first")
    if noises is not None and noises.shape != (len(table), *z.shape):
        raise ValueError(
            f"noises are {list(noises.shape)} for {len(table)} steps of latents {list(z.shape)}: pass one noise per "
            f"step and image, {[len(table), *z.shape]}"
        )
