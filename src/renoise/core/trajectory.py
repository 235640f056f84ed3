"""What an inversion finds: the noise, the way to it, and a report of every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from renoise.core.table import StepTable

__all__ = ["StepReport", "Trajectory"]


@dataclass(frozen=True, eq=False)
class StepReport:
    """How one step of an inversion went.

    Attributes:
        step: row of the table.
        timestep: of that row.
        level: its noise level, timestep / num_train_timesteps.
        passes: what the step cost each image, target and correction included; with a tolerance, at most.
        residuals: [pass, batch], how far each point of the solver was from solving the step; see `solvers.Solution`.
        noise_travel: [batch], how far correction or absorption moved the noise, in L2 over sqrt(dim), so as a share of
            white noise: the side information in this step.  None where neither ran.
        noise_std: [batch], standard deviation of noise that was matched or moved, 1 when white.  None for noise as
            drawn, and for latents that are not [batch, channel, height, width].
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
        table: the sampler's rows that it walked.
        z_T: the noisiest latent [batch, ...].
        noises: [step, batch, ...], noisiest step first, the noise with which `replay` is to run: the one given,
            matched, corrected or absorbing where the settings say so; None for a deterministic sampler.
        steps: reports, noisiest step first.
        passes: network passes per image; with a tolerance, of the slowest at each step.
        step_latents: [step, batch, ...], noisiest first: the latent from which each step of `replay` starts, so the
            first is z_T; None where they were not asked for.
    """

    table: StepTable
    z_T: Tensor  # noqa: N815 - the letters of the paper
    noises: Tensor | None
    steps: tuple[StepReport, ...]
    passes: int
    step_latents: Tensor | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Trajectory:
        """The same with `change` applied to each of its latents and noises, as for another device."""
        noises, step_latents = (
            None if latents is None else change(latents) for latents in (self.noises, self.step_latents)
        )
        return replace(self, z_T=change(self.z_T), noises=noises, step_latents=step_latents)
