r"""Sampler steps as rows of numbers, measured on a live diffusers scheduler.

One step of a sampler takes the noisier latent z_t to the less noisy z_s.  For the samplers handled here it is affine,
with coefficients that depend on the step alone (eq. 1 of ReNoise, Garibi et al., ECCV 2024):

    z_s = a z_t + b m(z_t) + n eps                      (1)

m is the network's output (noise, velocity or clean image, guidance included) and eps fresh white noise.  The way back
is derived from the same row, never written down a second time:

    z_t = (z_s - b m(z_t) - n eps) / a                  (2)

`StepTable.measure` finds the rows by asking the scheduler itself: it steps a copy on a batch of known latents, outputs
and noise, solves (1) for a, b, n, and holds the answer against other members of the batch.  Whatever the pipeline does,
the inverse undoes, quirks included; a scheduler whose step is not of the form (1) is refused with advice.

The forward process of training, z_t = alpha z_0 + sigma eps, is measured the same way.  Latents are in loop space: what
the pipeline's denoising loop carries, before `scale_model_input`.  Step 0 is the noisiest.
"""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from renoise.pipelines.advice import advice

__all__ = ["COLUMNS", "NotInvertible", "StepTable"]

COLUMNS = ("timesteps", "a", "b", "n", "input_scale", "alpha", "sigma")
_PROBE = (4, 4, 4)  # channel, height, width of a probe
_LARGE = 30.0  # standard deviation of the large probes: far outside any clipping range
_TOLERANCE = 1e-5  # of the terms of (1): schedulers that compute in float32 stay below 1e-6, broken ones are off by 1
_SMALLEST_A = 1e-3  # (2) divides by a: a smaller one would multiply the network's rounding beyond use


class NotInvertible(ValueError):  # noqa: N818 - reads as what it says
    """The scheduler's step cannot be undone; the message says why and what to type instead."""


@dataclass(frozen=True, eq=False)
class StepTable:
    """Rows of a sampler's schedule, noisiest step first.

    Attributes:
        timesteps: as handed to the network; this and the tensors below are float64 [T] on the CPU.
        a: factor of the noisier latent in (1), never 0.
        b: factor of the network's output.
        n: factor of the fresh noise, exactly 0 where the step draws none.
        input_scale: factor of the latent on its way into the network.
        alpha: forward process at the step's noisier side, factor of the clean latent; NaN if the scheduler has none.
        sigma: likewise the factor of the noise.
        num_train_timesteps: length of the training range that timesteps refer to.
    """

    timesteps: Tensor
    a: Tensor
    b: Tensor
    n: Tensor
    input_scale: Tensor
    alpha: Tensor
    sigma: Tensor
    num_train_timesteps: int

    def __post_init__(self) -> None:
        for name in COLUMNS:
            column = getattr(self, name)
            if column.dtype != torch.float64 or column.ndim != 1 or len(column) != len(self.timesteps):
                raise ValueError(
                    f"{name} is {column.dtype} {list(column.shape)}: a table of {len(self.timesteps)} steps holds "
                    f"float64 [{len(self.timesteps)}]"
                )
            if name not in ("alpha", "sigma") and not column.isfinite().all():
                raise ValueError(f"{name} = {column.tolist()}: a step is made of finite numbers")
        if not len(self.timesteps):
            raise ValueError("a table needs at least one step")
        if self.a.abs().min() < _SMALLEST_A:
            raise ValueError(f"a = {self.a.tolist()} comes too close to 0: (2) divides by it")

    @classmethod
    def measure(cls, scheduler: Any, *, eta: float = 0.0) -> StepTable:
        """Measure the rows of a diffusers scheduler on which `set_timesteps` has been called.

        Args:
            scheduler: any diffusers scheduler; only copies of it are stepped, and the global RNG is left as it is.
            eta: share of fresh noise, 0 to 1, handed to `step` where it takes one (DDIM, TCD), as pipelines do.

        Raises:
            NotInvertible: a step that keeps a history, clips, or has no inverse.
            ValueError: `eta` for a scheduler that takes none.
        """
        if not hasattr(scheduler, "step") or "num_train_timesteps" not in scheduler.config:
            raise NotInvertible(
                f"{type(scheduler).__name__} cannot be inverted: it lacks step() or config.num_train_timesteps"
            )
        accepted = inspect.signature(scheduler.step).parameters
        if eta and "eta" not in accepted:
            raise ValueError(f"eta={eta}: {type(scheduler).__name__}.step takes no eta; pass 0.0")
        if getattr(scheduler, "num_inference_steps", 1) is None and not getattr(scheduler, "custom_timesteps", False):
            raise NotInvertible(
                f"{type(scheduler).__name__} has no steps yet: call pipe.scheduler.set_timesteps(50) first"
            )
        if scheduler.timesteps[0] < scheduler.timesteps[-1]:
            raise _refusal(scheduler, 0, "its timesteps rise, and a sampler's fall from noise to picture")
        options = {"eta": eta} if "eta" in accepted else {}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            chain = _fresh_copy(scheduler)
            rows = [_measure_step(scheduler, chain, step, options) for step in range(len(scheduler.timesteps))]
            levels = [_measure_level(_fresh_copy(scheduler), step) for step in range(len(scheduler.timesteps))]
        a, b, n, input_scale = torch.tensor(rows, dtype=torch.float64).unbind(1)
        alpha, sigma = torch.tensor(levels, dtype=torch.float64).unbind(1)
        return cls(
            timesteps=scheduler.timesteps.detach().to("cpu", torch.float64, copy=True),
            a=a,
            b=b,
            n=n,
            input_scale=input_scale,
            alpha=alpha,
            sigma=sigma,
            num_train_timesteps=int(scheduler.config.num_train_timesteps),
        )

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def stochastic(self) -> bool:
        """Whether any step draws noise."""
        return bool((self.n != 0).any())

    def level(self, step: int) -> float:
        """Noise level of a step's noisier side as a fraction of the training range."""
        return float(self.timesteps[step]) / self.num_train_timesteps

    def forward(self, step: int, z: Tensor, m: Tensor, noise: Tensor | None) -> Tensor:
        """Eq. (1): z_s from z_t.

        Args:
            step: row of the table.
            z: z_t, float32 or float64 of any shape.
            m: the network's output at z_t, same shape.
            noise: white noise of the same shape; not read where n is 0.
        """
        return self.a[step].item() * z + self._drift(step, m, noise)

    def backward(self, step: int, z: Tensor, m: Tensor, noise: Tensor | None) -> Tensor:
        """Eq. (2): z_t from z_s = `z`; the other arguments as in `forward`."""
        return (z - self._drift(step, m, noise)) / self.a[step].item()

    def residual_noise(self, step: int, z_s: Tensor, z_t: Tensor, m: Tensor) -> Tensor:
        """The noise with which (1) takes z_t to z_s exactly: eps* = (z_s - a z_t - b m) / n."""
        n = self.n[step].item()
        if n == 0:
            raise ValueError(f"step {step} draws no noise (n = 0), so none could explain what is left over")
        return (z_s - self.a[step].item() * z_t - self.b[step].item() * m) / n

    def noisy(self, step: int, z_0: Tensor, noise: Tensor) -> Tensor:
        """The clean latent noised to the step's noisier side by the forward process: alpha z_0 + sigma eps."""
        alpha, sigma = self.alpha[step].item(), self.sigma[step].item()
        if math.isnan(alpha):
            raise ValueError(
                "this scheduler has no forward process (add_noise or scale_noise) to noise a latent with: switch the "
                "edit losses off"
            )
        return alpha * z_0 + sigma * noise

    def handed_over(self, scheduler: Any) -> Tensor:
        """The timesteps as a pipeline with this scheduler hands them to its network: float32, or integers.

        Where it has been exchanged since the table was measured, for one that counts in integers, they may be none.
        """
        whole = not scheduler.timesteps.is_floating_point() and self.timesteps.equal(self.timesteps.round())
        return self.timesteps.to(torch.long if whole else torch.float32)

    def tail(self, steps: int) -> StepTable:
        """The table of the `steps` least noisy steps, 1 up to all."""
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps={steps} of a table of {len(self)}: pass 1 to {len(self)}")
        return replace(self, **{name: getattr(self, name)[-steps:] for name in COLUMNS})

    def _drift(self, step: int, m: Tensor, noise: Tensor | None) -> Tensor:
        """What (1) adds to a z_t."""
        n = self.n[step].item()
        drift = self.b[step].item() * m
        if n == 0:
            return drift
        if noise is None:
            raise ValueError(f"step {step} draws noise (n = {n:.4g}): pass the noise it is to use")
        return drift + n * noise


def _fresh_copy(scheduler: Any) -> Any:
    """A copy on the CPU that stands before its first step, wherever the original stands."""
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
    """a, b, n and input scale of one step; advances `chain`, on which all earlier steps have been taken.

    The probes are (z, m) = (0, 0) twice, (1, 0), (0, 1) and two large random pairs, each with noise of its own.  They
    are drawn anew for every step, so that a scheduler which remembers earlier ones gives itself away.
    """
    draw = torch.Generator().manual_seed(step)
    z, m = torch.zeros(2, 6, *_PROBE, dtype=torch.float64)
    z[2], m[3] = 1, 1
    z[4:], m[4:] = _LARGE * torch.randn(2, 2, *_PROBE, generator=draw, dtype=torch.float64)

    timestep = chain.timesteps[step]
    source = torch.Generator().manual_seed(2 * step)
    sources = [source, torch.default_generator.manual_seed(2 * step + 1)]
    before = [source.get_state() for source in sources]
    if "generator" in inspect.signature(chain.step).parameters:
        options = {**options, "generator": source}
    try:
        scaled = chain.scale_model_input(z, timestep) if hasattr(chain, "scale_model_input") else z
        z_s = chain.step(m, timestep, z, return_dict=False, **options)[0].double()
    except Exception as error:
        raise _refusal(scheduler, step, f"its step fails on the probes ({type(error).__name__}: {error})") from error
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
        n = 0.0  # variances clamped to some 1e-20 and rounding

    wrong = max(_mismatch(z_s, [a * z, b * m, n * noise]), _mismatch(scaled.double(), [scale * z]))
    if wrong > _TOLERANCE:
        raise _refusal(
            scheduler,
            step,
            "its step is not z_s = a z + b m + n eps with fixed numbers a, b, n, because it keeps a history, clips, or "
            f"mixes pixels (known latents come out {wrong:.1%} off)",
        )
    if abs(a) < _SMALLEST_A:
        raise _refusal(scheduler, step, f"its step drops the latent (a = {a:.1g}), so nothing can be recovered from it")
    return a, b, n, scale


def _mismatch(answer: Tensor, terms: list[Tensor]) -> float:
    """Largest distance of a probe's answer from the sum of its terms, relative to their sizes; 1 when unrelated."""
    size = torch.stack([answer, *terms]).flatten(2).norm(dim=2).sum(0)
    distance = (answer - torch.stack(terms).sum(0)).flatten(1).norm(dim=1)
    worst: float = (distance / (size + 1e-3)).max().item()  # 1e-3: where all is 0, rounding is no mismatch
    return worst


def _drawn_noise(sources: list[torch.Generator], shape: torch.Size) -> list[Tensor]:
    """What a step can have drawn from generators that have moved on: normal numbers in either precision."""
    return [
        torch.randn(shape, generator=torch.Generator().manual_seed(source.initial_seed()), dtype=dtype).double()
        for source in sources
        for dtype in (torch.float64, torch.float32)
    ]


def _measure_level(fresh: Any, step: int) -> tuple[float, float]:
    """alpha and sigma of the forward process at a step's noisier side."""
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
    """Name the scheduler, the reason and what to type instead."""
    remedy = advice(scheduler)
    return NotInvertible(
        f"{type(scheduler).__name__} cannot be inverted at step {step} (t = {float(scheduler.timesteps[step]):g}): "
        f"{reason}. " + (f"Use instead: {remedy}" if remedy else "diffusers has no relative of it that can be")
    )
