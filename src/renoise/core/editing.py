r"""An edit as a displacement of the picture: one loop, of which the known ways to edit are special cases.

A picture is walked down to the clean latent along its source latents z_t, which all lead to the same z_0.  The edit
walks beside them, displaced by e, and what moves e is the difference between the clean estimates (see
`renoise.core.clean`) of the target prompt at the displaced latent and of the source prompt at the latent itself,

    D = x(z_t + e_t, m_target) - x(z_t, m_source) = c1 e_t + c2 (m_target - m_source)                  (5)
    e_s = A e_t + B M D                                                                                (6)

from e = 0 to the edited latent z_0 + e_0.  M is a gate in [0, 1].  A and B are those of the sampler's row,

    A = a - b c1 / c2,   B = b / c2     (so that without a gate e_s = a e_t + b (m_target - m_source))

or those of a step without noise between the same levels, A = sigma_s / sigma_t, B = alpha_s - A alpha_t, which forgets
less of what was displaced before.  Where both prompts are the same, D and e stay 0: the picture comes back exactly.

What the methods of the literature differ in is where the source latents come from (`Source`):

* the latents of an inversion, and m_source from the rows themselves, which takes no pass: the prompt swap of ReNoise
  and of every other inversion, since z_t + e_t then is the replay under the target prompt;
* the clean latent noised anew at every level, z_t = alpha z_0 + sigma eps_t: with the sampler's row the edit-friendly
  noise maps of Huberman-Spiegelglas et al. (CVPR 2024), with that of a flow-matching sampler FlowEdit (Kulikov et al.,
  ICCV 2025).  `renoised` mixes both.

Controls (`Controls`): the gate M (see `renoise.core.gate`) and a mask, which let the edit change some places only; the
step at which it starts; and guidance away from the source prompt at the displaced latent,

    m_target + w (m_target - m_source(z_t + e_t)).

The loop is a generator of queries like those of `renoise.core.loop`.  Scene 0 is the target,
scene 1 the source, which is asked about where its predictions are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from renoise.core.clean import CleanEstimate, clean_estimate
from renoise.core.gate import Evidence, soft_gate
from renoise.core.loop import ask
from renoise.core.query import Query
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory

__all__ = [
    "MAPS",
    "Controls",
    "Displaced",
    "Layout",
    "Source",
    "count_passes",
    "displace",
    "inverted_source",
    "moved",
    "renoised",
    "walk",
]

TARGET, SOURCE = 0, 1


@dataclass(frozen=True)
class Controls:
    """How an edit is held back or driven on.

    Attributes:
        preserve: p of the soft gate, 0 (everything may change) to 1.
        first_step: row of the table at which the edit starts, 0 for all of them.
        source_guidance: w, 0 or more.
        motion: "sampler" for A and B of the sampler's rows, "smooth" for those of steps without noise.
    """

    preserve: float = 0.0
    first_step: int = 0
    source_guidance: float = 0.0
    motion: Literal["sampler", "smooth"] = "sampler"


@dataclass(frozen=True, eq=False)
class Source:
    """A picture on its way from noise.

    Attributes:
        z_0: clean latent [batch, ...].
        latents: [step, batch, ...], noisiest first, at the noisier side of every row of the table.
        predictions: m_source at those latents, likewise; None where the network has to be asked.
    """

    z_0: Tensor
    latents: Tensor
    predictions: Tensor | None


@dataclass(frozen=True)
class Layout:
    """How latents are laid out as maps [batch, channels, height, width], and maps as latents."""

    to_maps: Callable[[Tensor], Tensor]
    from_maps: Callable[[Tensor], Tensor]


MAPS = Layout(lambda z: z, lambda maps: maps)


@dataclass(frozen=True, eq=False)
class Displaced:
    """What an edit found.

    Attributes:
        latents: z_0 + e_0 [batch, ...].
        evidence: s of `renoise.core.gate` [batch, 1, height, width] after the last step.
        passes: network passes per image.
    """

    latents: Tensor
    evidence: Tensor
    passes: int


@torch.no_grad()
def displace(
    table: StepTable, source: Source, controls: Controls, *, mask: Tensor | None = None, layout: Layout = MAPS
) -> Generator[Query, Tensor, Displaced]:
    """Edit a picture along its source latents.

    Args:
        table: the sampler's rows.
        source: the picture, float32 or float64.
        controls: how.
        mask: where the picture may change, [batch or 1, 1, height, width] in [0, 1] in the resolution of the maps; None
            for everywhere.
        layout: of the latents.

    Returns:
        A generator of queries about scene 0 (target) and scene 1 (source) that returns the edited latents.

    Raises:
        ValueError: the scheduler does not tell noise levels, or a prediction is not finite.
    """
    clean = clean_estimate(table)
    keep, move = _motion(table, clean, controls.motion)
    evidence, e = Evidence(), torch.zeros_like(source.z_0)
    passes = 0
    for step in range(controls.first_step, len(table)):
        z = source.latents[step]
        known = None if source.predictions is None else source.predictions[step]
        moving = step > controls.first_step  # before, the displaced latent is the latent itself
        scenes, points = [TARGET], [z + e]
        if known is None:
            scenes, points = [*scenes, SOURCE], [*points, z]
        if controls.source_guidance and moving:
            scenes, points = [*scenes, SOURCE], [*points, z + e]
        answers = (yield from ask(torch.cat(points), step, scenes=tuple(scenes))).chunk(len(scenes))
        passes += len(scenes)
        m_target, m_source = answers[0], answers[1] if known is None else known
        if controls.source_guidance:
            away = answers[-1] if moving else m_source
            m_target = m_target + controls.source_guidance * (m_target - away)
        difference = clean.of_z[step].item() * e + clean.of_m[step].item() * (m_target - m_source)
        maps = layout.to_maps(difference)
        gate = soft_gate(evidence.add(maps), controls.preserve)
        if mask is not None:
            gate = gate * mask
        e = keep[step].item() * e + move[step].item() * layout.from_maps(gate * maps)
    assert evidence.map is not None
    return Displaced(source.z_0 + e, evidence.map, passes)


def count_passes(table: StepTable, source_known: bool, controls: Controls) -> int:
    """Network passes per image that `displace` takes."""
    steps = len(table) - controls.first_step
    return steps * (1 if source_known else 2) + (steps - 1 if controls.source_guidance else 0)


def inverted_source(trajectory: Trajectory, z_0: Tensor) -> Source:
    """The latents of an inversion, with the predictions that its rows imply: m = (z_s - a z_t - n eps) / b.

    Raises:
        ValueError: the trajectory keeps the noisiest latent only; `walk` finds the others.
    """
    table, latents, noises = trajectory.table, trajectory.step_latents, trajectory.noises
    if latents is None:
        raise ValueError("this trajectory keeps the noisiest latent only: walk it first")
    after = torch.cat([latents[1:], z_0[None]])
    implied = []
    for step in range(len(table)):
        a, b, n = (column[step].item() for column in (table.a, table.b, table.n))
        drift = after[step] - a * latents[step]
        implied.append((drift if n == 0 or noises is None else drift - n * noises[step]) / b)
    return Source(z_0, latents, torch.stack(implied))


def renoised(table: StepTable, z_0: Tensor, fresh: Tensor, share: float = 1.0, latents: Tensor | None = None) -> Source:
    """Source latents with a share of fresh noise in them; their predictions have to be asked.

    Args:
        table: the sampler's rows.
        z_0: clean latent [batch, ...].
        fresh: white noise [step, batch, ...].
        share: of the variance that the fresh noise makes up, in [0, 1].
        latents: those of an inversion, likewise; needed below share 1.

    Raises:
        ValueError: the scheduler has no forward process.
    """
    mixed = []
    for step in range(len(table)):
        noise = fresh[step]
        if share < 1:
            assert latents is not None
            found = (latents[step] - table.alpha[step].item() * z_0) / table.sigma[step].item()
            noise = (1 - share) ** 0.5 * found + share**0.5 * noise
        mixed.append(table.noisy(step, z_0, noise))
    return Source(z_0, torch.stack(mixed), None)


def moved(table: StepTable, latents: Tensor, shift: Tensor) -> Tensor:
    """Latents [step, batch, ...] of a picture whose clean latent has been moved by `shift`, with the same noise."""
    alpha = table.alpha.to(latents).view(-1, *[1] * shift.ndim)
    return latents + alpha * shift


@torch.no_grad()
def walk(trajectory: Trajectory) -> Generator[Query, Tensor, Tensor]:
    """The latents of every step [step, batch, ...], by replaying an inversion that keeps the noisiest one only."""
    table, z = trajectory.table, trajectory.z_T
    latents = [z]
    for step in range(len(table) - 1):
        m = yield from ask(z, step)
        z = table.forward(step, z, m, None if trajectory.noises is None else trajectory.noises[step])
        latents.append(z)
    return torch.stack(latents)


def _motion(table: StepTable, clean: CleanEstimate, motion: str) -> tuple[Tensor, Tensor]:
    """A and B of (6), float64 [T]."""
    keep, move = table.a - table.b * clean.of_z / clean.of_m, table.b / clean.of_m
    if motion == "smooth" and len(table) > 1:  # the last step leads to a level that is not in the table
        ratio = table.sigma[1:] / table.sigma[:-1]
        keep = torch.cat([ratio, keep[-1:]])
        move = torch.cat([table.alpha[1:] - ratio * table.alpha[:-1], move[-1:]])
    return keep, move
