"""Runs recorded from the method's published implementation, and our settings for each; see `tests.core.test_golden`."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from torch import Tensor

from renoise.core.settings import EditLosses, Region, Settings, window
from renoise.presets import PRESETS

GOLDEN = Path(__file__).parents[1] / "data/golden"
TOLERANCE = 1e-6  # coefficients were float32 in the recorded run
CORRECTION = 18 / 32  # ten steps of 1.8 in L2; the recorded latents have 1024 = 32^2 numbers

LOSSES = EditLosses(lambda_pair=20, lambda_kl=0.065)
TURBO = PRESETS["reference-sdxl-turbo"].settings


def iterations(k: int) -> Settings:
    """Plain renoising with the published cap of 5 iterations below t = 250."""
    return Settings((Region(0.25, min(k, 5)), Region(iterations=k)))


@dataclass(frozen=True)
class Case:
    """One recorded run.

    Attributes:
        settings: ours for it.
        passes: what the published implementation spent.
        dropped: how many of them it computed for nothing.
        file: where it is recorded, if not under its own name.
        steps: how many steps of the sampler were inverted, if not all.
    """

    settings: Settings
    passes: int
    dropped: int = 0
    file: str | None = None
    steps: int | None = None


CASES = {
    "sdxl_euler4_K0": Case(iterations(0), 4),
    "sdxl_euler4_K1": Case(iterations(1), 8),
    "sdxl_euler4_K4": Case(iterations(4), 20),
    "sdxl_euler4_K9": Case(iterations(9), 36, file="sdxl_euler4_K9_corr"),  # recorded alike but for its corrections
    "sdxl_euler4_K9_avg": Case(replace(TURBO, edit_losses=None, correction=0.0), 36),
    "sdxl_euler4_K9_corr": Case(replace(iterations(9), correction=CORRECTION), 40, dropped=1),
    "sdxl_euler4_K9_all": Case(replace(TURBO, correction=CORRECTION), 44, dropped=1),
    "sdxl_euler4_K9_all_max075": Case(  # recorded alike for the steps it takes
        replace(TURBO, correction=CORRECTION), 44 - 12, dropped=1, file="sdxl_euler4_K9_all", steps=3
    ),
    "sdxl_ddim10_K0": Case(iterations(0), 10),
    "sdxl_ddim10_K1_avg_reg": Case(
        Settings((Region(0.25, 1, window(1, 2, 1)), Region(iterations=1)), edit_losses=LOSSES), 30, dropped=7
    ),
    "sdxl_ddim10_K1_cfg3": Case(iterations(1), 40),
    "sdxl_ddim50_K1": Case(iterations(1), 100),
    "sdxl_lcm4_K4": Case(Settings((Region(iterations=4),)), 20),  # no step lies below t = 250, so no cap
    "sdxl_lcm4_K9_avg_reg": Case(Settings((Region(iterations=9, weights=window(9, 10, 9)),), edit_losses=LOSSES), 44),
}


def load(name: str) -> tuple[dict[str, Tensor], Any]:
    """Tensors, the floating ones in float64, and the scheduler before `set_timesteps`, if one is recorded."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        about = file.metadata()
    tensors = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
    return tensors, about and scheduler(about["scheduler"], json.loads(about["config"]))


def scheduler(name: str, config: dict[str, Any]) -> Any:
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    return kind(**{key: value for key, value in config.items() if key in known})


def error(ours: Tensor, recorded: Tensor) -> float:
    """Relative error in L2."""
    return float((ours - recorded).norm() / recorded.norm())


def pipeline(scheduler: Any = None) -> StableDiffusionXLPipeline:
    """The pipeline that the runs were recorded on, in float32; its weights lie in the folder."""
    chosen = {} if scheduler is None else {"scheduler": scheduler}
    found = StableDiffusionXLPipeline.from_pretrained(
        GOLDEN / "tiny_sdxl", local_files_only=True, add_watermarker=False, **chosen
    )
    found.set_progress_bar_config(disable=True)
    return found
