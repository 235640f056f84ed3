"""Measure the rows of a sampler on a live diffusers scheduler.

`measure` finds the coefficients of equation (1) of `renoise.core.table` by experiment.  It lets a copy of the scheduler
step a batch of known latents, network outputs and noise, called probes, computes a, b and n from some of them, and
checks that (1) holds for all of them.  So the inverse undoes what the pipeline really does, special cases included.  A
scheduler whose step is not of the form (1) is refused with advice on what to use instead.  The forward process is
measured in the same way.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from renoise.core.table import SMALLEST_A, StepTable
from renoise.pipelines.advice import advice

__all__ = ["NotInvertible", "measure"]

_PROBE = (4, 4, 4)  # channels, height and width of a probe
_LARGE = 30.0  # standard deviation of the large probes: far outside any clipping range
_TOLERANCE = 1e-5  # relative error of (1); float32 schedulers stay below 1e-6, others are off by 1


class NotInvertible(ValueError):  # noqa: N818 - reads as what it says
    """The scheduler's step cannot be undone.  The message says why and what to type instead."""


def measure(scheduler: Any, *, eta: float = 0.0) -> StepTable:
    """Measure the rows of a diffusers scheduler on which `set_timesteps` has been called.

    Args:
        scheduler: any diffusers scheduler.  Only copies of it take steps, and the global random state is not changed.
        eta: share of fresh noise, 0 to 1, passed to `step` if it takes one (DDIM, TCD), as pipelines do.

    Returns:
        The table of all its timesteps.

    Raises:
        NotInvertible: a step keeps a history, clips, or has no inverse.
        ValueError: `eta` is not 0 and the scheduler takes none.
    """
    if not hasattr(scheduler, "step") or "num_train_timesteps" not in scheduler.config:
        raise NotInvertible(
            f"{type(scheduler).__name__} cannot be inverted: it lacks step() or config.num_train_timesteps"
        )
    accepted = inspect.signature(scheduler.step).parameters
    if eta and "eta" not in accepted:
        raise ValueError(f"eta={eta}: {type(scheduler).__name__}.step takes no eta; pass 0.0")
    if getattr(scheduler, "num_inference_steps", 1) is None and not getattr(scheduler, "custom_timesteps", False):
        raise NotInvertible(f"{type(scheduler).__name__} has no steps yet: call pipe.scheduler.set_timesteps(50) first")
    if scheduler.timesteps[0] < scheduler.timesteps[-1]:
        raise _refusal(scheduler, 0, "its timesteps rise, but a sampler goes from noise to image")
    levels, first = getattr(scheduler, "alphas_cumprod", None), float(scheduler.timesteps[0])
    if levels is not None and first >= len(levels):
        raise NotInvertible(
            f"{type(scheduler).__name__} cannot be inverted: its first timestep is {first:g}, and the model has noise "
            f"levels below {len(levels)}; use fewer steps than num_inference_steps={len(scheduler.timesteps)}"
        )
    options = {"eta": eta} if "eta" in accepted else {}
    with torch.no_grad():
        chain = _fresh_copy(scheduler)
        rows = [_measure_step(scheduler, chain, step, options) for step in range(len(scheduler.timesteps))]
        levels = [_measure_level(_fresh_copy(scheduler), step) for step in range(len(scheduler.timesteps))]
    a, b, n, input_scale = torch.tensor(rows, dtype=torch.float64).unbind(1)
    alpha, sigma = torch.tensor(levels, dtype=torch.float64).unbind(1)
    return StepTable(
        timesteps=scheduler.timesteps.detach().to("cpu", torch.float64, copy=True),
        a=a,
        b=b,
        n=n,
        input_scale=input_scale,
        alpha=alpha,
        sigma=sigma,
        num_train_timesteps=int(scheduler.config.num_train_timesteps),
        integer_timesteps=not scheduler.timesteps.is_floating_point(),
    )


def _fresh_copy(scheduler: Any) -> Any:
    """A copy on the CPU that is about to take its first step, wherever the original is."""
    fresh = copy.deepcopy(scheduler)
    for name, value in vars(fresh).items():
        if isinstance(value, Tensor):
            setattr(fresh, name, value.cpu())
    if hasattr(fresh, "_step_index"):
        fresh._step_index = None
    if hasattr(fresh, "set_begin_index"):
        fresh.set_begin_index(0)
    return fresh


def _measure_step(scheduler: Any, chain: Any, step: int, options: dict[str, Any]) -> tuple[float, float, float, float]:
    """a, b, n and input scale of one step, which is taken on `chain`, a copy that has taken all earlier steps.

    The probes are (z, m) = (0, 0) twice, (1, 0), (0, 1) and two large random pairs, each with noise of its own.  They
    are drawn anew for every step, so that (1) fails for a scheduler that remembers earlier ones.
    """
    draw = torch.Generator().manual_seed(step)
    z, m = torch.zeros(2, 6, *_PROBE, dtype=torch.float64)
    z[2], m[3] = 1, 1
    z[4:], m[4:] = _LARGE * torch.randn(2, 2, *_PROBE, generator=draw, dtype=torch.float64)

    timestep = chain.timesteps[step]
    source = torch.Generator().manual_seed(2 * step)
    sources = [source, torch.Generator().manual_seed(2 * step + 1)]  # the second in place of the global one
    before = [source.get_state() for source in sources]
    if "generator" in inspect.signature(chain.step).parameters:
        options = {**options, "generator": source}
    try:
        scaled = chain.scale_model_input(z, timestep) if hasattr(chain, "scale_model_input") else z
        with _Drawing(sources[1]):
            z_s = chain.step(m, timestep, z, return_dict=False, **options)[0].double()
    except Exception as error:
        raise _refusal(scheduler, step, f"its step fails on test latents ({type(error).__name__}: {error})") from error
    drawn = [source for source, state in zip(sources, before, strict=True) if not source.get_state().equal(state)]

    if z_s.shape != z.shape or not z_s.isfinite().all():
        raise _refusal(scheduler, step, "its step does not return finite latents")
    n, noise = 0.0, torch.zeros_like(z)
    for candidate in _drawn_noise(drawn, z.shape):
        fit = (z_s[0] * candidate[0]).sum().item() / candidate[0].square().sum().item()
        if (z_s[:2] - fit * candidate[:2]).norm() <= (z_s[:2] - n * noise[:2]).norm():
            n, noise = fit, candidate
    a = (z_s[2] - n * noise[2]).mean().item()
    b = (z_s[3] - n * noise[3]).mean().item()
    scale = scaled[2].mean().item()
    if abs(n) < 1e-6 * max(abs(a), abs(b)):
        n = 0.0  # only rounding, or a variance that the scheduler clamps to about 1e-20

    wrong = max(_mismatch(z_s, [a * z, b * m, n * noise]), _mismatch(scaled.double(), [scale * z]))
    if wrong > _TOLERANCE:
        raise _refusal(
            scheduler,
            step,
            "its step is not z_s = a z + b m + n eps with fixed numbers a, b, n, because it keeps a history, clips, or "
            f"mixes pixels (known latents come out {wrong:.1%} off)",
        )
    if abs(a) < SMALLEST_A:
        raise _refusal(scheduler, step, f"its step drops the latent (a = {a:.1g}), so it has no inverse")
    return a, b, n, scale


class _Drawing(TorchFunctionMode):
    """Has what is drawn from the global generator inside drawn from another one, in this thread alone."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        options = dict(keywords or {})
        if function is torch.randn_like:
            (like, *_), wanted = arguments or (options["input"],), options.get("dtype")
            return torch.randn(like.shape, generator=self._generator, dtype=wanted or like.dtype, device=like.device)
        if function in _DRAWS and options.get("generator") is None:
            options["generator"] = self._generator
        return function(*arguments, **options)


_DRAWS = (torch.rand, torch.randint, torch.randn, torch.randperm, torch.normal, Tensor.normal_, Tensor.uniform_)


def _mismatch(answer: Tensor, terms: list[Tensor]) -> float:
    """Largest distance of an answer from the sum of its terms, relative to their sizes.  About 1 if unrelated."""
    size = torch.stack([answer, *terms]).flatten(2).norm(dim=2).sum(0)
    distance = (answer - torch.stack(terms).sum(0)).flatten(1).norm(dim=1)
    worst: float = (distance / (size + 1e-3)).max().item()  # 1e-3: if all terms are 0, rounding does not count
    return worst


def _drawn_noise(sources: list[torch.Generator], shape: torch.Size) -> list[Tensor]:
    """The noise that a step may have drawn from generators whose state has changed, in float64 and in float32."""
    return [
        torch.randn(shape, generator=torch.Generator().manual_seed(source.initial_seed()), dtype=dtype).double()
        for source in sources
        for dtype in (torch.float64, torch.float32)
    ]


def _measure_level(fresh: Any, step: int) -> tuple[float, float]:
    """alpha and sigma of the forward process at a step's noisier side.  NaN if the scheduler has none."""
    if hasattr(fresh, "set_begin_index"):
        fresh.set_begin_index(step)
    clean, noise = torch.zeros(2, 2, *_PROBE, dtype=torch.float64)
    clean[0], noise[1] = 1, 1
    timestep = fresh.timesteps[step].reshape(1).expand(2)
    if hasattr(fresh, "add_noise"):
        noisy = fresh.add_noise(clean, noise, timestep)
    elif hasattr(fresh, "scale_noise"):
        noisy = fresh.scale_noise(clean, timestep, noise)
    else:
        return math.nan, math.nan
    return noisy[0].mean().item(), noisy[1].mean().item()


def _refusal(scheduler: Any, step: int, reason: str) -> NotInvertible:
    """The error that names the scheduler, the reason, and what to type instead."""
    remedy = advice(scheduler)
    return NotInvertible(
        f"{type(scheduler).__name__} cannot be inverted at step {step} (t = {float(scheduler.timesteps[step]):g}): "
        f"{reason}. "
        + (f"Use instead: {remedy}" if remedy else "diffusers has no similar scheduler that can be inverted")
    )
