"""The result of an inversion: the noisiest latent, the noise of every step, and a report of every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from renoise.core.table import StepTable

__all__ = ["StepReport", "Trajectory"]


@dataclass(frozen=True, eq=False)
class StepReport:
    """How one step of an inversion went.

    Attributes:
        step: row of the table.
        timestep: timestep of that row.
        level: noise level of that row, timestep / num_train_timesteps.
        passes: network passes per image, those for the edit losses' target and for correction included.  With a
            tolerance, those of the image that took the most.
        residuals: [pass, batch], how far each evaluated point was from solving the step, as in
            `renoise.core.solvers.Solution`.
        noise_travel: [batch], how far correction or absorption moved the noise, in L2 divided by sqrt(dim), which is a
            share of the length of white noise.  It measures the side information about the image that the noise of
            this step carries.  None if neither correction nor absorption ran.
        noise_std: [batch], standard deviation of noise that was matched or moved, 1 for white noise.  None for noise
            that is used as it was drawn, and for latents that are not [batch, channel, height, width].
        noise_correlation: [batch], correlation of adjacent pixels of that noise, 0 for white noise.  None likewise.
    """

    step: int
    timestep: float
    level: float
    passes: int
    residuals: Tensor
    noise_travel: Tensor | None = None
    noise_std: Tensor | None = None
    noise_correlation: Tensor | None = None

    def only(self, rows: Sequence[int]) -> StepReport:
        """The report on some pictures of the batch."""
        chosen = list(rows)
        measured: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else value[chosen]
            for name in ("noise_travel", "noise_std", "noise_correlation")
        }
        return replace(self, residuals=self.residuals[:, chosen], **measured)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What an inversion found.

    Attributes:
        table: the rows of the sampler that the inversion walked.
        z_T: the noisiest latent [batch, ...], in loop space.
        noises: [step, batch, ...], noisiest step first, the noise that `replay` needs.  It is the noise that was given
            to the inversion, as far as matching, correction and absorption did not change it.  None for a
            deterministic sampler.
        steps: one report per step, noisiest step first.
        passes: network passes per image, summed over the steps.  With a tolerance, each step counts the image that took
            the most.
        step_latents: [step, batch, ...], noisiest first, the latent from which each step of `replay` starts, so the
            first one is z_T.  None unless they were asked for.
    """

    table: StepTable
    z_T: Tensor  # noqa: N815 - the letters of the paper
    noises: Tensor | None
    steps: tuple[StepReport, ...]
    passes: int
    step_latents: Tensor | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Trajectory:
        """A copy with `change` applied to all latents and noises, for instance to move them to another device."""
        noises, step_latents = (
            None if latents is None else change(latents) for latents in (self.noises, self.step_latents)
        )
        return replace(self, z_T=change(self.z_T), noises=noises, step_latents=step_latents)

    def only(self, rows: Sequence[int]) -> Trajectory:
        """The trajectory of some pictures of the batch."""
        chosen = list(rows)
        noises, step_latents = (
            None if latents is None else latents[:, chosen].contiguous() for latents in (self.noises, self.step_latents)
        )
        steps = tuple(report.only(chosen) for report in self.steps)
        return replace(self, z_T=self.z_T[chosen].contiguous(), noises=noises, steps=steps, step_latents=step_latents)
