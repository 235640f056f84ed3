"""Presets: settings with a name, what they reach, and where they come from; and which of them a pipeline gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from renoise.core.settings import EditLosses, Region, Settings, window
from renoise.pipelines.adapter import Adapter

__all__ = ["PRESETS", "Preset", "chosen_settings", "name_of", "preset_for", "preset_name"]


@dataclass(frozen=True)
class Preset:
    """Settings with a name.

    Attributes:
        name: the name to pass as ``renoise.invert(..., preset=name)``.
        settings: the settings.  ``dataclasses.replace`` makes a copy with some of them changed.
        score: the PSNR in dB that these settings reach, on what that was measured, and the network passes they take.
        source: where the numbers in the settings come from.
    """

    name: str
    settings: Settings
    score: str
    source: str


def _two_regions(
    boundary: float, near_image: tuple[int, tuple[int, int]], above: tuple[int, tuple[int, int]]
) -> tuple[Region, ...]:
    """Two regions, below and above `boundary`, each from (iterations, (first, last) pass of the averaging window)."""
    return tuple(
        Region(below, iterations, window(*passes, iterations))
        for below, (iterations, passes) in ((boundary, near_image), (math.inf, above))
    )


# With 4 steps the paper's boundary, t = 250 of 1000, separates the step nearest the image from the others.  That step
# is t = 249 with the sampler of SDXL Turbo but t = 259 with the LCM sampler, so the LCM preset has its boundary above.
_BOUNDARY = 0.25
_LCM_BOUNDARY = 0.26

# The published bound is 18 in L2 at 512 pixels, where latents have 4 x 64 x 64 numbers, so sqrt(dim) = 128.
_CORRECTION = 18 / 128

# This library's own settings.  They suit samplers with and without noise, because matching and absorption do nothing
# where no noise is drawn.
_FEW_STEP = Settings(
    regions=(Region(iterations=2),),
    solver="anderson",
    start="expected",
    noise="matched",
    absorption=math.inf,
    nearest=6,
    num_inference_steps=4,
)
_MANY_STEP = replace(_FEW_STEP, regions=(Region(),), nearest=1, num_inference_steps=50)
_OWN = "this library, chosen on validation pictures"
_FOUR_STEPS = (
    "emoji-turbo in 4 steps, 64 validation pictures, mean dB to the auto-encoder's round trip (and 5th percentile): "
)

# Presets named "paper-..." or "reference-..." are the published method and nothing else.
_ALL = (
    Preset(
        "paper-sd",
        Settings(
            regions=_two_regions(_BOUNDARY, (1, (1, 2)), (1, (2, 2))),
            edit_losses=EditLosses(lambda_pair=10, lambda_kl=0.05),
            num_inference_steps=50,
        ),
        score="not published for SD; 150 passes, of which 50 are for the target of the edit losses",
        source="paper, table 3, SD",
    ),
    Preset(
        "paper-sdxl",
        Settings(
            regions=_two_regions(_BOUNDARY, (1, (1, 2)), (1, (2, 2))),
            edit_losses=EditLosses(lambda_pair=10, lambda_kl=0.055),
            num_inference_steps=50,
        ),
        score="30.1 dB without the edit losses (paper, fig. 8); 150 passes, of which 50 are for the target of the edit "
        "losses",
        source="paper, table 3, SDXL",
    ),
    Preset(
        "paper-sdxl-turbo",
        Settings(
            regions=_two_regions(_BOUNDARY, (9, (1, 4)), (9, (8, 10))),
            edit_losses=EditLosses(lambda_pair=10, lambda_kl=0.055),
            correction=_CORRECTION,
            num_inference_steps=4,
        ),
        score="22.1 dB (paper, table 2); 47 passes: 40 as the paper counts, 4 for the targets of the edit losses and "
        "3 for correction",
        source="paper, table 3, SDXL Turbo; correction as in the paper's code, 18 in L2 at 512 pixels",
    ),
    Preset(
        "paper-lcm",
        Settings(
            regions=_two_regions(_LCM_BOUNDARY, (7, (1, 4)), (7, (6, 8))),
            edit_losses=EditLosses(lambda_pair=20, lambda_kl=0.075),
            correction=_CORRECTION,
            num_inference_steps=4,
        ),
        score="27.4 dB at 40 passes without edit losses (paper, fig. 8, LCM sampler); 39 passes here",
        source="paper, table 3, LCM-LoRA; the boundary lies above t = 259, the LCM sampler's step nearest the image",
    ),
    Preset(
        "reference-sdxl-turbo",
        Settings(
            regions=_two_regions(_BOUNDARY, (5, (1, 5)), (9, (9, 10))),
            edit_losses=EditLosses(lambda_pair=20, lambda_kl=0.065),
            correction=_CORRECTION,
            num_inference_steps=4,
        ),
        score="22.1 dB (paper, table 2, with the defaults of the paper's code); 43 passes",
        source="defaults of the paper's code",
    ),
    Preset(
        "paper-flow",
        Settings(regions=(Region(iterations=1),), num_inference_steps=28),
        score="not measured on trained weights; 56 passes",
        source="not published for flow matching; K = 1 as in the paper for many steps, 28 steps as SD3 and FLUX.1 dev",
    ),
    Preset(
        "paper-flow-few-step",
        Settings(regions=(Region(iterations=9),), num_inference_steps=4),
        score="not measured on trained weights; 40 passes",
        source="not published for flow matching; K = 9 as in the paper for 4 steps, 4 steps as FLUX.1 schnell",
    ),
    Preset(
        "few-step",
        _FEW_STEP,
        score=_FOUR_STEPS + "ancestral Euler 49.3 (44.2), LCM 48.3 (43.3), with side information in the noise; "
        "16 passes",
        source=_OWN,
    ),
    Preset(
        "fast",
        replace(_FEW_STEP, regions=(Region(),), nearest=4),
        score=_FOUR_STEPS + "ancestral Euler 43.5 (40.3), LCM 42.8 (39.7), with side information in the noise; "
        "8 passes",
        source=_OWN,
    ),
    Preset(
        "fast-latent",
        replace(
            _FEW_STEP,
            noise="independent",
            absorption=0.0,
            regions=(Region(0.9, iterations=4), Region(iterations=3)),
            nearest=5,
        ),
        score=_FOUR_STEPS + "ancestral Euler 46.1 (42.1), LCM 45.3 (41.3), without side information, but the standard "
        "deviation of z_T is 1.7 and 1.9 times that of its noise level; 20 passes",
        source=_OWN,
    ),
    Preset(
        "sharp",
        replace(_FEW_STEP, nearest=10),
        score=_FOUR_STEPS + "ancestral Euler 58.5 (50.3), LCM 57.0 (49.3), with side information in the noise; "
        "emoji-turbo-sharp 45.6 (38.3) and 44.4 (37.2), where few-step has 39.3 (34.2) and 38.4 (33.1); 20 passes",
        source=_OWN,
    ),
    Preset(
        "many-step",
        _MANY_STEP,
        score="emoji without guidance, 32 validation pictures, mean dB to the auto-encoder's round trip: DDIM 65.5, "
        "Euler 66.0; 51 passes (ReNoise with K = 1 reaches 58.2 and 52.3 in 100 passes)",
        source=_OWN,
    ),
    Preset(
        "flow",
        replace(_MANY_STEP, num_inference_steps=28),
        score="emoji used as a flow-matching model with shift 3, 8 validation pictures, mean dB to the auto-encoder's "
        "round trip: 62.6; 29 passes (ReNoise with K = 1 reaches 44.7 in 56 passes)",
        source="as many-step, with 28 steps as in the pipelines of SD3 and FLUX.1 dev",
    ),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
"""All presets by name."""


def preset_name(
    pipeline: str, scheduler: str, config: Mapping[str, Any], *, few_step: bool = False, published: bool = False
) -> str:
    """The name in `PRESETS` of the preset for a pipeline.

    Args:
        pipeline: name of the pipeline's class.
        scheduler: name of its scheduler's class.
        config: the scheduler's configuration.
        few_step: whether a flow-matching pipeline is known to be distilled to few steps.
        published: whether to choose among the published presets instead of this library's own.
    """
    flow, consistency = _flow(scheduler, config), scheduler.startswith(("LCM", "TCD", "FlowMatchLCM"))
    trailing = scheduler.startswith("Euler") and config.get("timestep_spacing") == "trailing"
    few = few_step or consistency if flow else consistency or trailing
    if not published:
        return "few-step" if few else "flow" if flow else "many-step"
    if flow:
        return "paper-flow-few-step" if few else "paper-flow"
    if few:
        return "paper-lcm" if consistency else "paper-sdxl-turbo"
    return "paper-sdxl" if "XL" in pipeline else "paper-sd"


def _flow(scheduler: str, config: Mapping[str, Any]) -> bool:
    return (
        scheduler.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def preset_for(
    pipeline: str,
    scheduler: str,
    config: Mapping[str, Any],
    preset: str | Preset | Settings | None = None,
    *,
    few_step: bool = False,
) -> Settings:
    """The settings to use with a pipeline.

    Args:
        pipeline: name of the pipeline's class.
        scheduler: name of its scheduler's class.
        config: the scheduler's configuration.
        preset: a preset, its name in `PRESETS`, settings of the user's own, "paper" for what was published for such a
            pipeline, or None for this library's own preset.  That is a few-step preset for the samplers that few-step
            models come with (LCM, TCD, and Euler with trailing timestep spacing), otherwise a many-step preset.
        few_step: whether a flow-matching pipeline is known to be distilled to few steps.

    Returns:
        The settings.  If `preset` is None or "paper" and the network does not predict noise, they have no edit losses,
        because those treat the network's output as noise.

    Raises:
        TypeError: `preset` is none of the above.
        ValueError: the name is unknown, or the settings have edit losses and the network does not predict noise.
    """
    predicted = "velocity" if _flow(scheduler, config) else str(config.get("prediction_type", "epsilon"))
    predicts_noise = predicted == "epsilon"
    if preset is not None and not isinstance(preset, (str, Preset, Settings)):
        raise TypeError(f"preset={preset!r} is neither a name nor Settings: there are paper, {', '.join(PRESETS)}")
    if preset is None or preset == "paper":
        name = preset_name(pipeline, scheduler, config, few_step=few_step, published=preset == "paper")
        chosen = PRESETS[name].settings
        return replace(chosen, edit_losses=None) if chosen.edit_losses and not predicts_noise else chosen
    if isinstance(preset, Preset):
        preset = preset.name if PRESETS.get(preset.name) == preset else preset.settings
    if isinstance(preset, str) and preset not in PRESETS:
        raise ValueError(f"no preset is called {preset!r}: there are paper, {', '.join(PRESETS)}")
    settings = PRESETS[preset].settings if isinstance(preset, str) else preset
    if settings.edit_losses and not predicts_noise:
        shown = f"PRESETS[{preset!r}].settings" if isinstance(preset, str) else "settings"
        raise ValueError(
            "the edit losses of this preset need a network that predicts noise, and this one predicts "
            f"{predicted}: pass dataclasses.replace({shown}, edit_losses=None)"
        )
    return settings


def name_of(settings: Settings) -> str | None:
    """The name of the preset with exactly these settings, or None."""
    return next((preset.name for preset in PRESETS.values() if preset.settings == settings), None)


def chosen_settings(adapter: Adapter, preset: str | Preset | Settings | None = None, **given: Any) -> Settings:
    """The settings to use with a pipeline (see `preset_for`), changed by the given values.

    Args:
        adapter: the wrapped pipeline.
        preset: as for `preset_for`.
        given: fields of `Settings` by name.  A value of None leaves the preset's value as it is.

    Raises:
        TypeError: `preset` is neither a preset nor a name nor settings.
        ValueError: the preset is unknown, or a value is not allowed in settings.
    """
    scheduler = adapter.pipe.scheduler
    settings = preset_for(
        type(adapter.pipe).__name__, type(scheduler).__name__, scheduler.config, preset, few_step=adapter.few_step
    )
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **changed) if changed else settings
