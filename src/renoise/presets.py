"""Settings of the method as small frozen data, validated when they are made, and the published ones by name.

A number of passes counts evaluations of the network on one latent.  A step with K renoising iterations takes K + 1 of
them; passes are numbered 1..K+1, as in the paper (ReNoise, Garibi et al., ECCV 2024, table 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

__all__ = ["PRESETS", "EditLosses", "Region", "Settings", "plain", "preset_for", "preset_name", "window"]

Solver = Literal["renoise", "anderson"]
Start = Literal["previous", "expected"]
Noise = Literal["independent", "matched"]


def window(first: int, last: int, iterations: int) -> tuple[float, ...]:
    """Weights that average the predictions of passes `first` to `last`, both included, of `iterations` + 1.

    Args:
        first: 1 or more.
        last: `first` or more, at most `iterations` + 1.
        iterations: renoising iterations K, 0 or more.

    Returns:
        One weight per pass; they sum to 1.

    Raises:
        ValueError: a window that is empty or reaches beyond the last pass.
    """
    if not 1 <= first <= last:
        raise ValueError(f"window {first}..{last} is empty: count passes from 1, first <= last")
    if last > iterations + 1:
        raise ValueError(
            f"window {first}..{last} reaches beyond the last pass: {iterations} renoising iterations take "
            f"{iterations + 1} passes; raise the iterations to {last - 1} or end the window at {iterations + 1}"
        )
    return tuple(1 / (last - first + 1) if first <= k <= last else 0.0 for k in range(1, iterations + 2))


@dataclass(frozen=True)
class Region:
    """What to do at the steps of one range of noise levels.

    Attributes:
        below: the region covers steps whose level, t / num_train_timesteps, lies below this and below no earlier
            region's bound.
        iterations: renoising iterations K; a step takes K + 1 passes.
        weights: one per pass, 0 or more, normalised on use: the step's final direction is the weighted mean of its
            predictions, and the edit losses act on the passes that enter it.  None takes the last prediction as it is,
            without edit losses; to apply them to the last pass alone, give it the only weight.
    """

    below: float = math.inf
    iterations: int = 0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.below > 0:
            raise ValueError(f"below={self.below} leaves no step in the region: pass a level above 0, or math.inf")
        if self.iterations < 0:
            raise ValueError(f"iterations={self.iterations}: pass 0 (plain sampler reversing) or more")
        if self.weights is None:
            return
        if len(self.weights) != self.iterations + 1:
            raise ValueError(
                f"{len(self.weights)} weights for {self.iterations + 1} passes (iterations={self.iterations}): pass "
                "one weight per pass, for instance window(first, last, iterations)"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or not sum(self.weights) > 0:
            raise ValueError(f"weights={self.weights} have no mean: pass numbers of 0 or more with a positive sum")


@dataclass(frozen=True)
class EditLosses:
    """Edit-enhancement losses, lambda_pair L_pair + lambda_kl L_patch-KL; see `renoise.core.edit_losses`.

    Attributes:
        lambda_pair: weight of the auto-correlation loss, 0 or more.
        lambda_kl: weight of the patch divergence, 0 or more; above 0 it costs one pass per step, for its target.
        steps: gradient steps, 1 or more.
        rolls: rolls of the auto-correlation loss per gradient step, 1 or more.
    """

    lambda_pair: float
    lambda_kl: float
    steps: int = 4
    rolls: int = 5

    def __post_init__(self) -> None:
        for name, weight in (("lambda_pair", self.lambda_pair), ("lambda_kl", self.lambda_kl)):
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}={weight} is not a weight: pass 0 to skip this loss, or a positive number")
        if self.lambda_pair == self.lambda_kl == 0:
            raise ValueError("both lambdas are 0, so there is nothing to lower: pass edit_losses=None instead")
        if self.steps < 1 or self.rolls < 1:
            raise ValueError(f"steps={self.steps}, rolls={self.rolls}: pass 1 or more of both, or edit_losses=None")


@dataclass(frozen=True)
class Settings:
    """Everything an inversion needs to know besides the model and the image; by default as published.

    Attributes:
        regions: tried in order at each step; their bounds rise and the last one is math.inf.
        edit_losses: None for none.
        correction: how far the noise of a stochastic step may move, in L2 over sqrt(dim), dim = how many numbers it
            has: 0.0 none, math.inf exact (edits badly), between = bounded.  Above 0 it costs one pass per noisy step.
        solver: "renoise", as published, or "anderson", accelerated: no weights; see `renoise.core.solvers`.
        start: where a step's first pass asks: at the less noisy latent ("previous", as published), or where the noisier
            one is "expected": the image with the noise that the step has to keep, for a sampler that draws noise
            (`renoise.core.noise`), and the reversal by the prediction extrapolated from the steps before, for one that
            does not (`renoise.core.extrapolation`).
        noise: of stochastic steps: "independent" of the trajectory, as published, or "matched" to what the less noisy
            latent carries; see `renoise.core.noise`.
        absorption: like correction, but for free: a stochastic step ends on the best point that it evaluated, and its
            noise moves towards the residual there, at most this far.
        nearest: renoising iterations of the step nearest the image; None leaves them to its region.
        passes: how many passes an inversion takes in all, dealt to the steps as `renoise.core.budget` says, whatever
            the regions and `nearest`; None for no total.
        tol: an image is done with a step once its residual is at most this share of the RMS of its latent, and leaves
            the batch until the next step (where networks are called directly); 0.0 for never.
        num_inference_steps: sampler steps, 1 or more.
        guidance_scale: of reconstruction and editing; 1.0 is no guidance.
        inversion_guidance_scale: of the inversion; 1.0 is no guidance.
        score: what these settings should reach, in dB and passes, and who measured it.
        source: where their numbers come from.
    """

    regions: tuple[Region, ...]
    edit_losses: EditLosses | None = None
    correction: float = 0.0
    solver: Solver = "renoise"
    start: Start = "previous"
    noise: Noise = "independent"
    absorption: float = 0.0
    nearest: int | None = None
    passes: int | None = None
    tol: float = 0.0
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    inversion_guidance_scale: float = 1.0
    score: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        bounds = [region.below for region in self.regions]
        if not bounds or bounds[-1] != math.inf or sorted(set(bounds)) != bounds:
            raise ValueError(
                f"regions end at {bounds}: every step needs one, so let the bounds rise and leave the last one math.inf"
            )
        if self.edit_losses and all(region.weights is None for region in self.regions):
            raise ValueError(
                "edit losses act on the passes that enter a mean, and no region has weights: pass "
                "weights=window(first, last, iterations), or edit_losses=None"
            )
        for name in ("correction", "absorption"):
            bound = getattr(self, name)
            if not bound >= 0:
                raise ValueError(
                    f"{name}={bound} is no distance: pass 0.0 (none), math.inf (exact) or between, like 0.14"
                )
        for name, known in (("solver", get_args(Solver)), ("start", get_args(Start)), ("noise", get_args(Noise))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(known)}")
        for name, least in (("nearest", 0), ("passes", 1)):
            count = getattr(self, name)
            if count is not None and (not isinstance(count, int) or count < least):
                raise ValueError(f"{name}={count!r}: pass a whole number, {least} or more, or None")
        if not isinstance(self.tol, (int, float)) or not 0 <= self.tol < 1:
            raise ValueError(
                f"tol={self.tol!r} is no share of a latent: pass 0.0 for no tolerance, or a number like 1e-3"
            )
        self._check_together()
        if not isinstance(self.num_inference_steps, int) or self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps={self.num_inference_steps!r}: pass a whole number, 1 or more")
        for name in ("guidance_scale", "inversion_guidance_scale"):
            scale = getattr(self, name)
            if not isinstance(scale, (int, float)) or not 1 <= scale < math.inf:
                raise ValueError(f"{name}={scale!r}: pass 1.0 for no guidance (turbo models too), or more")

    def _check_together(self) -> None:
        """Refuse what is sound alone but not in company."""
        if self.correction and self.absorption:
            raise ValueError(
                f"correction={self.correction} and absorption={self.absorption} move the noise towards the same "
                "residual: pass one of them, absorption where passes count"
            )
        if self.correction and self.passes is not None:
            raise ValueError(
                f"correction={self.correction} costs passes that passes={self.passes} does not deal: pass absorption "
                "instead, which costs none"
            )
        fixed = [
            name for name in ("solver", "nearest", "passes", "tol") if getattr(self, name) != getattr(Settings, name)
        ]
        if fixed and any(region.weights is not None for region in self.regions):
            raise ValueError(
                f"{fixed[0]}={getattr(self, fixed[0])!r} and weights: they average a fixed number of renoising passes, "
                "so leave them out of the regions, or take a preset without, such as 'few-step' or 'many-step'"
            )

    def region(self, level: float) -> Region:
        """The region of a step at noise level `level` = t / num_train_timesteps."""
        return next(region for region in self.regions if level < region.below)


def plain(settings: Settings) -> Settings:
    """The same steps and guidance by plain sampler reversing, one pass a step: the baseline of every comparison."""
    return Settings(
        regions=(Region(),),
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        inversion_guidance_scale=settings.inversion_guidance_scale,
        score=f"sampler reversing: {settings.num_inference_steps} passes, the floor to compare with",
    )


def _two_regions(
    boundary: float, near_image: tuple[int, tuple[int, int]], above: tuple[int, tuple[int, int]]
) -> tuple[Region, ...]:
    """Two regions of (iterations, window) each."""
    return tuple(
        Region(below, iterations, window(*passes, iterations))
        for below, (iterations, passes) in ((boundary, near_image), (math.inf, above))
    )


# At 4 steps the paper's boundary, t = 250 of 1000, parts the step nearest the image from the others.  That step is
# t = 249 on SDXL Turbo's grid but t = 259 on that of the LCM sampler, so the LCM preset puts the boundary just above.
_BOUNDARY = 0.25
_LCM_BOUNDARY = 0.26

# The published bound is 18 units of L2 at 512 pixels, where a latent has 4 x 64 x 64 numbers: sqrt(dim) = 128.
_CORRECTION = 18 / 128

# This library's own.  A sampler that draws no noise has none to match or to absorb with, so these suit both kinds.
_FEW_STEP = Settings(
    regions=(Region(iterations=2),),
    solver="anderson",
    start="expected",
    noise="matched",
    absorption=math.inf,
    nearest=6,
    num_inference_steps=4,
    score="measured on 64 validation pictures, emoji-turbo, to the auto-encoder's round trip: ancestral Euler 48.5 dB "
    "(5th percentile 43.2), LCM 47.5 (42.8), with side information in the noise; 16 passes",
    source="this library, chosen on validation pictures",
)
_MANY_STEP = replace(
    _FEW_STEP,
    regions=(Region(),),
    nearest=1,
    num_inference_steps=50,
    score="measured on 8 validation pictures, emoji without guidance, to the auto-encoder's round trip: DDIM 62.9 dB, "
    "Euler 63.3, where K = 1 takes 100 passes to 57.4 and 51.0; 51 passes",
)

# Names with "paper" or "reference" are the published method and nothing else.
PRESETS: dict[str, Settings] = {
    "paper-sd": Settings(
        regions=_two_regions(_BOUNDARY, (1, (1, 2)), (1, (2, 2))),
        edit_losses=EditLosses(lambda_pair=10, lambda_kl=0.05),
        num_inference_steps=50,
        score="not published for SD; 150 passes, 50 of them for the target of the edit losses",
        source="paper, table 3, SD",
    ),
    "paper-sdxl": Settings(
        regions=_two_regions(_BOUNDARY, (1, (1, 2)), (1, (2, 2))),
        edit_losses=EditLosses(lambda_pair=10, lambda_kl=0.055),
        num_inference_steps=50,
        score="30.1 dB without the edit losses (paper, fig. 8); 150 passes, 50 of them for the target",
        source="paper, table 3, SDXL",
    ),
    "paper-sdxl-turbo": Settings(
        regions=_two_regions(_BOUNDARY, (9, (1, 4)), (9, (8, 10))),
        edit_losses=EditLosses(lambda_pair=10, lambda_kl=0.055),
        correction=_CORRECTION,
        num_inference_steps=4,
        score="22.1 dB (paper, table 2); 47 passes: 40 as the paper counts, 4 for targets and 3 for correction",
        source="paper, table 3, SDXL Turbo; correction as its code, 18 in L2 at 512 pixels",
    ),
    "paper-lcm": Settings(
        regions=_two_regions(_LCM_BOUNDARY, (7, (1, 4)), (7, (6, 8))),
        edit_losses=EditLosses(lambda_pair=20, lambda_kl=0.075),
        correction=_CORRECTION,
        num_inference_steps=4,
        score="27.4 dB at 40 passes without edit losses (paper, fig. 8, LCM sampler); 39 passes here",
        source="paper, table 3, LCM-LoRA; regions part above t = 259, the first step of the LCM sampler",
    ),
    "reference-sdxl-turbo": Settings(
        regions=_two_regions(_BOUNDARY, (5, (1, 5)), (9, (9, 10))),
        edit_losses=EditLosses(lambda_pair=20, lambda_kl=0.065),
        correction=_CORRECTION,
        num_inference_steps=4,
        score="22.1 dB (paper, table 2, by the defaults of its code); 43 passes",
        source="defaults of the paper's code",
    ),
    "paper-flow": Settings(
        regions=(Region(iterations=1),),
        num_inference_steps=28,
        score="not measured on trained weights; 56 passes",
        source="not published for flow matching: K = 1 as for many steps; 28 steps as SD3 and FLUX.1 dev",
    ),
    "paper-flow-few-step": Settings(
        regions=(Region(iterations=9),),
        num_inference_steps=4,
        score="not measured on trained weights; 40 passes",
        source="not published for flow matching: K = 9 as for 4 steps; 4 steps as FLUX.1 schnell",
    ),
    "few-step": _FEW_STEP,
    "fast": replace(
        _FEW_STEP,
        regions=(Region(),),
        nearest=4,
        score="measured likewise: ancestral Euler 43.5 dB (39.7), LCM 42.8 (38.9); 8 passes",
    ),
    "fast-latent": replace(
        _FEW_STEP,
        noise="independent",
        absorption=0.0,
        regions=(Region(0.9, iterations=4), Region(iterations=3)),
        nearest=5,
        score="measured likewise: ancestral Euler 44.8 dB (39.4), LCM 43.9 (38.3), without side information but with "
        "z_T at 2.0 and 2.3 times its level; 20 passes",
    ),
    "many-step": _MANY_STEP,
    "flow": replace(
        _MANY_STEP,
        num_inference_steps=28,
        score="measured on 8 validation pictures, emoji asked as a flow-matching model with shift 3: 60.7 dB, where "
        "K = 1 takes 56 passes to 45.9; 29 passes",
        source="as many-step; 28 steps as the pipelines of SD3 and FLUX.1 dev",
    ),
}


def preset_name(
    pipeline: str, scheduler: str, config: Mapping[str, Any], *, few_step: bool = False, published: bool = False
) -> str:
    """The key in `PRESETS` of the settings for a pipeline: this library's own, or those that were published.

    Other arguments as of `preset_for`.
    """
    flow, consistency = _flow(scheduler, config), scheduler.startswith(("LCM", "TCD"))
    trailing = scheduler.startswith("Euler") and config.get("timestep_spacing") == "trailing"
    few = few_step if flow else consistency or trailing
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
    preset: str | Settings | None = None,
    *,
    few_step: bool = False,
) -> Settings:
    """The settings to use with a pipeline.

    Args:
        pipeline: name of the pipeline's class.
        scheduler: name of its scheduler's class.
        config: the scheduler's configuration.
        preset: a key of `PRESETS`, settings of one's own, "paper" for what was published for such a pipeline, or None
            to choose this library's: few-step settings for the samplers that few-step models ship with (LCM, TCD,
            Euler on a trailing grid), otherwise many steps.
        few_step: whether a flow-matching pipeline is known to be distilled to few steps.

    Returns:
        The settings.  Where they were chosen here for a network that does not predict noise, without the edit losses,
        which would take its output for noise.

    Raises:
        TypeError: a preset that is none of the three.
        ValueError: an unknown name, or edit losses for a network that does not predict noise.
    """
    predicted = "velocity" if _flow(scheduler, config) else str(config.get("prediction_type", "epsilon"))
    predicts_noise = predicted == "epsilon"
    if preset in (None, "paper"):
        name = preset_name(pipeline, scheduler, config, few_step=few_step, published=preset == "paper")
        chosen = PRESETS[name]
        return replace(chosen, edit_losses=None) if chosen.edit_losses and not predicts_noise else chosen
    if not isinstance(preset, (str, Settings)):
        raise TypeError(f"preset={preset!r} is neither a name nor Settings: there are paper, {', '.join(PRESETS)}")
    if isinstance(preset, str) and preset not in PRESETS:
        raise ValueError(f"no preset is called {preset!r}: there are paper, {', '.join(PRESETS)}")
    settings = PRESETS[preset] if isinstance(preset, str) else preset
    if settings.edit_losses and not predicts_noise:
        shown = f"PRESETS[{preset!r}]" if isinstance(preset, str) else "settings"
        raise ValueError(
            "the edit losses of this preset need a network that predicts noise, and this one predicts "
            f"{predicted}: pass dataclasses.replace({shown}, edit_losses=None)"
        )
    return settings
