"""Settings of the method as small frozen data, validated when they are made.

A number of passes counts evaluations of the network on one latent.  A step with K renoising iterations takes K + 1 of
them; passes are numbered 1..K+1, as in the paper (ReNoise, Garibi et al., ECCV 2024, table 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from renoise.core.checks import number, shown, values, whole
from renoise.core.query import Query
from renoise.core.solvers import SOLVERS, Solver
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory

__all__ = ["EditLosses", "Method", "Region", "Settings", "plain", "window"]

Start = Literal["previous", "expected"]
Noise = Literal["independent", "matched"]
Method = Callable[[StepTable, Tensor, Tensor | None], Generator[Query, Tensor, Trajectory]]
"""A whole method of inversion: from the table, the clean latents [batch, ...] and the sampler's noises
[step, batch, ...] (None where it draws none) to a generator of queries that returns what it found."""


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
    first, last = (
        whole(name, value, ": count passes from 1, in whole numbers", least=1)
        for name, value in (("first", first), ("last", last))
    )
    iterations = whole("iterations", iterations, ": pass a whole number, 0 or more", limit="iterations")
    if first > last:
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
        below: covers steps whose level, t / num_train_timesteps, lies below this bound and that no earlier region
            covers.
        iterations: renoising iterations K; a step takes K + 1 passes.
        weights: one per pass, 0 or more, normalised on use: the step's final direction is the weighted mean of its
            predictions, and the edit losses act on the passes that enter it.  None takes the last prediction as it is,
            without edit losses; to apply them to the last pass alone, give it the only weight.
    """

    below: float = math.inf
    iterations: int = 0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        below = number(
            "below", self.below, " leaves no step in the region: pass a level above 0, or math.inf", lambda x: x > 0
        )
        iterations = whole(
            "iterations",
            self.iterations,
            ": pass 0 (plain sampler reversing) or more, a whole number",
            limit="iterations",
        )
        _store(self, below=below, iterations=iterations)
        if self.weights is None:
            return
        remedy = " are no weights: pass one number per pass, for instance window(first, last, iterations)"
        given = values("weights", self.weights, remedy)
        if len(given) != iterations + 1:
            raise ValueError(
                f"{len(given)} weights for {iterations + 1} passes (iterations={iterations}): pass one weight per "
                "pass, for instance window(first, last, iterations)"
            )
        remedy = " have no mean: pass numbers of 0 or more with a positive sum"
        mean = f" among weights={shown(given)}, which{remedy}"
        weights = tuple(number("weight", weight, mean, lambda x: 0 <= x < math.inf) for weight in given)
        if not 0 < sum(weights) < math.inf:
            raise ValueError(f"weights={shown(weights)}{remedy}")
        _store(self, weights=weights)


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
        for name in ("lambda_pair", "lambda_kl"):
            remedy = " is not a weight: pass 0 to skip this loss, or a positive number"
            _store(self, **{name: number(name, getattr(self, name), remedy, lambda x: 0 <= x < math.inf)})
        for name in ("steps", "rolls"):
            remedy = ": pass a whole number, 1 or more, or edit_losses=None"
            _store(self, **{name: whole(name, getattr(self, name), remedy, least=1, limit="iterations")})
        if self.lambda_pair == self.lambda_kl == 0:
            raise ValueError("both lambdas are 0, so there is nothing to lower: pass edit_losses=None instead")


@dataclass(frozen=True)
class Settings:
    """Everything an inversion needs to know besides the model and the image; by default as published.

    Attributes:
        regions: tried in order at each step; their bounds rise and the last one is math.inf.
        edit_losses: None for none.
        correction: how far the noise of a stochastic step may move, in L2 over sqrt(dim), dim = how many numbers it
            has: 0.0 none, math.inf exact (edits badly), between = bounded.  Above 0 it costs one pass per noisy step.
        solver: "renoise", as published; "anderson", accelerated; or a solver of one's own, a function like those of
            `renoise.core.solvers`.  Only "renoise" knows weights.
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
        method: a whole method of inversion in place of this library's, see `Method`; of the other settings it meets
            only steps and guidance, and `passes` tells progress bars how many it takes.  None for this library's.
    """

    regions: tuple[Region, ...]
    edit_losses: EditLosses | None = None
    correction: float = 0.0
    solver: str | Solver = "renoise"
    start: Start = "previous"
    noise: Noise = "independent"
    absorption: float = 0.0
    nearest: int | None = None
    passes: int | None = None
    tol: float = 0.0
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    inversion_guidance_scale: float = 1.0
    method: Method | None = None

    def __post_init__(self) -> None:
        self._check_regions()
        self._check_names()
        for name in ("correction", "absorption"):
            remedy = " is no distance: pass 0.0 (none), math.inf (exact) or between, like 0.14"
            _store(self, **{name: number(name, getattr(self, name), remedy, lambda x: x >= 0)})
        for name, least, limit in (("nearest", 0, "iterations"), ("passes", 1, "passes")):
            count, remedy = getattr(self, name), f": pass a whole number, {least} or more, or None"
            if count is not None:
                _store(self, **{name: whole(name, count, remedy, least=least, limit=limit)})
        remedy = " is no share of a latent: pass 0.0 for no tolerance, or a number like 1e-3"
        _store(self, tol=number("tol", self.tol, remedy, lambda x: 0 <= x < 1))
        self._check_together()
        remedy = ": pass a whole number, 1 or more"
        steps = whole("num_inference_steps", self.num_inference_steps, remedy, least=1, limit="steps")
        _store(self, num_inference_steps=steps)
        for name in ("guidance_scale", "inversion_guidance_scale"):
            remedy = ": pass 1.0 for no guidance (turbo models too), or more"
            _store(self, **{name: number(name, getattr(self, name), remedy, lambda x: 1 <= x < math.inf)})

    def _check_regions(self) -> None:
        remedy = " is no list of regions: pass a tuple of Region, for instance (Region(iterations=1),)"
        regions = values("regions", self.regions, remedy)
        if not all(isinstance(region, Region) for region in regions):
            raise ValueError(f"regions={shown(self.regions)}{remedy}")
        _store(self, regions=regions)
        bounds = [region.below for region in regions]
        if not bounds or bounds[-1] != math.inf or sorted(set(bounds)) != bounds:
            raise ValueError(
                f"regions end at {shown(bounds)}: every step needs one, so let the bounds rise and leave the last one "
                "math.inf"
            )
        if not isinstance(self.edit_losses, (EditLosses, type(None))):
            raise ValueError(
                f"edit_losses={shown(self.edit_losses)} are none: pass EditLosses(lambda_pair=..., lambda_kl=...), or "
                "None"
            )
        if self.edit_losses and all(region.weights is None for region in regions):
            raise ValueError(
                "edit losses act on the passes that enter a mean, and no region has weights: pass "
                "weights=window(first, last, iterations), or edit_losses=None"
            )

    def _check_names(self) -> None:
        for name, known in (("start", get_args(Start)), ("noise", get_args(Noise))):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name}={shown(value)} is none of {', '.join(known)}: pass one of them")
        if not callable(self.solver) and not (isinstance(self.solver, str) and self.solver in SOLVERS):
            raise ValueError(
                f"solver={shown(self.solver)} is none of {', '.join(SOLVERS)}, and no function: pass one of them, or a "
                "function like those of renoise.core.solvers"
            )
        if self.method is not None and not callable(self.method):
            raise ValueError(
                f"method={shown(self.method)} is no function: pass one like renoise.core.settings.Method, or None"
            )

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


def _store(instance: Region | EditLosses | Settings, **found: Any) -> None:
    """Sets attributes of frozen data while they are made."""
    for name, value in found.items():
        object.__setattr__(instance, name, value)


def plain(settings: Settings) -> Settings:
    """The same steps and guidance by plain sampler reversing, one pass a step: the baseline of every comparison."""
    return Settings(
        regions=(Region(),),
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        inversion_guidance_scale=settings.inversion_guidance_scale,
    )
