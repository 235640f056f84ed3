"""Tables of real samplers, closed-form denoisers and images for them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor

from renoise.core.loop import drive, invert, replay
from renoise.core.query import Query
from renoise.core.rolls import draw_rolls
from renoise.core.settings import EditLosses, Region, Settings, window
from renoise.core.table import StepTable
from renoise.core.toy import Toy
from renoise.core.trajectory import Trajectory
from renoise.pipelines.measure import measure

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM: dict[str, Any] = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
SHAPE = (2, 4, 8, 16)  # two images, not square
SPREAD = 1.5  # of the toy's components
LOSSES = EditLosses(lambda_pair=0.5, lambda_kl=0.01, steps=2, rolls=2)
EVERYTHING = Settings(
    regions=(Region(0.3, 1, window(1, 2, 1)), Region(iterations=3, weights=window(3, 4, 3))),
    edit_losses=LOSSES,
    correction=0.05,
)


def made(kind: str, steps: int, eta: float = 0.0, **config: Any) -> StepTable:
    scheduler = getattr(diffusers, kind)(**config)
    scheduler.set_timesteps(steps)
    return measure(scheduler, eta=eta)


TABLES: dict[str, Callable[[], StepTable]] = {
    "ddim": lambda: made("DDIMScheduler", 10, **DDIM),
    "ddim-eta": lambda: made("DDIMScheduler", 10, 1.0, **DDIM),
    "euler": lambda: made("EulerAncestralDiscreteScheduler", 4, **BETAS, timestep_spacing="trailing"),
    "lcm": lambda: made("LCMScheduler", 4, **BETAS, clip_sample=False),
    "flow": lambda: made("FlowMatchEulerDiscreteScheduler", 8, shift=3.0),
}


def k(iterations: int, correction: float = 0.0) -> Settings:
    return Settings((Region(iterations=iterations),), correction=correction)


def white(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def toy(table: StepTable, name: str = "", shape: tuple[int, ...] = SHAPE, prompts: tuple[int, ...] = (0, 1)) -> Toy:
    """Two prompts of three components each; `prompts` meets the batch."""
    means = white(99, 2, 3, *shape[1:])
    return Toy(table, means, prompts, spread=SPREAD, prediction="flow" if name == "flow" else "epsilon")


def clean(shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Images from the toy's own mixtures."""
    return white(99, 2, 3, *shape[1:])[[0, 1], [2, 0]] + SPREAD * white(1, *shape)


def noises(table: StepTable, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return white(2, len(table), *shape)


def rolls_from(*seeds: int) -> Callable[[tuple[int, ...]], Tensor]:
    """Rolls of each image from its own generator."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda shape: draw_rolls(shape, steps=LOSSES.steps, rolls=LOSSES.rolls, generators=generators)


def inverted(table: StepTable, denoise: Callable[[Query], Tensor], settings: Settings, z_0: Tensor) -> Trajectory:
    return drive(
        invert(
            table,
            z_0,
            settings=settings,
            noises=noises(table, tuple(z_0.shape)),
            forward_noise=white(3, *z_0.shape),
            rolls=rolls_from(*range(len(z_0))),
        ),
        denoise,
    )


def replayed(table: StepTable, denoise: Callable[[Query], Tensor], found: Trajectory) -> Tensor:
    return drive(replay(table, found.z_T, found.noises), denoise)
