"""Measure the rows of one of ComfyUI's samplers by asking its own sampler function.

A row is one step as numbers, z_s = a z_t + b m + n eps (eq. 1 of `renoise.core.table`).  In ComfyUI a sampler calls
its model once or more per step and is answered with D, the clean estimate at noise level s.  The prediction that the
core works with is

    m = (z_t - D) / s,

the noise of EPS and v-prediction models and the velocity of flow (CONST) models.  `measure` runs the sampler function
once over the whole schedule.  In place of a model stands a probe that answers with random numbers, drawn anew at every
step; the noise that the sampler draws is random numbers of the probe's too.  So z_t, D, eps and z_s of every step are
known.  The factors of z_s = p z_t + q D + n eps follow by least squares, and what does not fit them is refused with
advice on what to use instead.  With D = z_t - s m they give a = p + q and b = -q s.  Latents are float64, and the
schedule is float32 as in ComfyUI, because a sampler's own rounding of it is a part of what has to be undone.

The forward process z_t = alpha z_0 + sigma eps is measured in the same way on the model's own `noise_scaling`.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from renoise import NotInvertible, StepTable

__all__ = ["KNOWN", "measure"]

KNOWN = ("euler", "ddim", "euler_ancestral", "lcm", "ddpm")
"""Names of ComfyUI's samplers whose steps are affine, as `comfyui.proof` finds them."""

_SHAPE = (6, 4, 4, 4)
_LARGE = 30.0  # standard deviation of the probes: far outside any range that a sampler may clip to
_TOLERANCE = 1e-5  # relative error of a row; samplers in float64 stay below 1e-12, others are off by 1
_LEVELS = 1000  # in which noise levels are counted, whatever the model counts in


def measure(sampler: Any, model_sampling: Any, sigmas: Tensor, name: str = "this sampler") -> StepTable:
    """Measure the rows of a sampler on a schedule.

    Args:
        sampler: one of ComfyUI's sampler objects (SAMPLER), as `comfy.samplers.sampler_object` makes them.
        model_sampling: the model's noise levels, `model.get_model_object("model_sampling")`.
        sigmas: noise levels [T + 1] of the schedule, noisiest first, falling to 0.
        name: what errors call the sampler.

    Returns:
        The table of its T steps, with the model's sigmas in the column `sigma`.

    Raises:
        NotInvertible: a step is not affine, or has no inverse; says what to use instead.
        ValueError: the sigmas are no schedule from noise to a clean image.
    """
    levels = _checked(sigmas)
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        raise _refusal(name, f"a {type(sampler).__name__} hides its steps from the outside")
    steps = len(levels) - 1
    probe = _Probe(model_sampling, steps)
    options = dict(getattr(sampler, "extra_options", {}))
    if "noise_sampler" in inspect.signature(function).parameters:
        options["noise_sampler"] = probe.noise
    start = _LARGE * torch.randn(_SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    try:
        with torch.no_grad():
            end = function(
                probe, start, levels.float(), extra_args=probe.extra_args, callback=None, disable=True, **options
            )
    except NotInvertible as error:
        raise _refusal(name, str(error)) from None
    except Exception as error:
        raise _refusal(name, f"it fails on test latents ({type(error).__name__}: {error})") from error
    calls = probe.calls
    if len(calls) != steps:
        raise _refusal(name, f"it asks the model {len(calls)} times for {steps} steps")
    following = [*(call.z for call in calls[1:]), end]
    rows = [_row(name, *found) for found in zip(levels[:-1], calls, following, strict=True)]
    a, b, n = torch.tensor(rows, dtype=torch.float64).unbind(1)
    sampled = levels[:-1]
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    alpha = [model_sampling.noise_scaling(level, zero, one, False).item() for level in sampled]
    sigma = [model_sampling.noise_scaling(level, one, zero, False).item() for level in sampled]
    try:
        return StepTable(
            timesteps=torch.tensor([_level(model_sampling, level, alpha) for level in sampled], dtype=torch.float64),
            a=a,
            b=b,
            n=n,
            input_scale=torch.ones_like(a),
            alpha=torch.tensor(alpha, dtype=torch.float64),
            sigma=torch.tensor(sigma, dtype=torch.float64),
            num_train_timesteps=_LEVELS,
        )
    except ValueError as error:
        raise _refusal(name, str(error)) from error


@dataclass
class _Call:
    """What the probe was asked, and what it answered with: z_t, s, D, and the noises drawn until the next call."""

    z: Tensor
    sigma: Tensor
    clean: Tensor
    noises: list[Tensor] = field(default_factory=list)


class _Probe:
    """Stands in for ComfyUI's guided model while a sampler is measured."""

    def __init__(self, model_sampling: Any, steps: int) -> None:
        self._steps = steps
        self._draws = torch.Generator().manual_seed(0)
        self.calls: list[_Call] = []
        self.extra_args: dict[str, Any] = {"model_options": {}, "seed": 0}
        # where samplers look for the model's noise levels, as they do behind ComfyUI's own wrappers
        patcher = SimpleNamespace(get_model_object=lambda name: model_sampling, model_options={})
        model = SimpleNamespace(model_sampling=model_sampling)
        self.inner_model = SimpleNamespace(inner_model=model, model_patcher=patcher, model_options={})

    def __call__(self, x: Tensor, sigma: Tensor, model_options: dict[str, Any], **_: Any) -> Tensor:
        if model_options:
            raise NotInvertible("it reads the model's answers from before guidance")
        if len(self.calls) == self._steps:
            raise NotInvertible("it asks the model more than once for a step")
        clean = self._random()
        self.calls.append(_Call(x.clone(), sigma.clone(), clean))
        return clean.clone()

    def noise(self, *_: Any) -> Tensor:
        """The `noise_sampler` of the sampler function."""
        drawn = self._random()
        if not self.calls:
            raise NotInvertible("it draws noise before it asks the model")
        self.calls[-1].noises.append(drawn)
        return drawn.clone()

    def _random(self) -> Tensor:
        return _LARGE * torch.randn(_SHAPE, generator=self._draws, dtype=torch.float64)


def _checked(sigmas: Tensor) -> Tensor:
    """The schedule as ComfyUI rounds it, in float64 on the CPU."""
    levels = sigmas.detach().to("cpu", torch.float32).double()
    shown = [round(level, 4) for level in levels.flatten().tolist()]
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas={shown} hold no step: raise steps or denoise, or wire a longer schedule")
    if not levels.isfinite().all():
        raise ValueError(f"sigmas={shown} are not finite: take the schedule from a scheduler node of this model")
    if not (levels[:-1] > levels[1:]).all():
        raise ValueError(f"sigmas={shown} do not fall: an inversion takes the schedule from noise to image, unflipped")
    if levels[-1] != 0:
        raise ValueError(
            f"sigmas={shown} end at {levels[-1].item():g}, above 0: an inversion begins at a clean image, so let the "
            "schedule end at 0 (no SplitSigmas before it)"
        )
    return levels


def _row(name: str, level: Tensor, call: _Call, z_s: Tensor) -> tuple[float, float, float]:
    """a, b, n of the step from a call to the next latents."""
    if len(call.noises) > 1:
        raise _refusal(name, "it draws noise more than once for a step")
    if not bool((call.sigma == level).all()):
        raise _refusal(name, "it asks the model at other noise levels than those of the schedule")
    columns = [call.z, call.clean, *call.noises]
    sizes = [column.norm().item() for column in columns]
    matrix = torch.stack([c.flatten() / size for c, size in zip(columns, sizes, strict=True)], 1)
    found = torch.linalg.lstsq(matrix, z_s.flatten()[:, None].double()).solution.flatten()
    terms = found.abs().sum().item() + z_s.norm().item()
    wrong = (matrix @ found - z_s.flatten()).norm().item() / terms
    if not wrong <= _TOLERANCE:  # NaN too
        raise _refusal(
            name,
            f"a step of it is not a z + b m + n eps: it keeps a history or clips (latents come out {wrong:.1%} off)",
        )
    factors = [value / size for value, size in zip(found.tolist(), sizes, strict=True)]
    p, q, n = factors if len(factors) == 3 else (*factors, 0.0)
    a, b = p + q, -q * level.item()
    return a, b, n if abs(n) > 1e-9 * max(abs(a), abs(b)) else 0.0


def _level(model_sampling: Any, sigma: Tensor, alpha: list[float]) -> float:
    """Where a noise level lies between 0 and 1000, in the model's own count if it has one of that kind."""
    if any(factor != 1 for factor in alpha):  # flow: sigma is the share of noise
        return _LEVELS * sigma.item()
    steps = getattr(model_sampling, "num_timesteps", None)
    if steps:
        return float(model_sampling.timestep(sigma.float())) * _LEVELS / int(steps)
    return _LEVELS * math.atan(sigma.item()) * 2 / math.pi


def _refusal(name: str, reason: str) -> NotInvertible:
    instead = "euler_ancestral" if any(word in name for word in ("ancestral", "sde", "ddpm", "seeds")) else "euler"
    return NotInvertible(
        f"{name} cannot be inverted: {reason}. Use {instead} instead; {', '.join(KNOWN)} can be inverted"
    )
