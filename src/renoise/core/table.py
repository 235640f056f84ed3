r"""The steps of a sampler as rows of numbers.

One step of a sampler takes the noisier latent z_t to the less noisy z_s.  For the samplers handled here this is an
affine map whose coefficients depend on the step alone (eq. 1 of ReNoise, Garibi et al., ECCV 2024):

    z_s = a z_t + b m(z_t) + n eps                      (1)

m is the network's output (noise, velocity or clean image, guidance included) and eps is fresh white noise.  The inverse
is derived from the same row, so it cannot disagree with the step:

    z_t = (z_s - b m(z_t) - n eps) / a                  (2)

This module does not know where the numbers come from.  `renoise.pipelines.measure` finds them on a live diffusers
scheduler.

The forward process of training is z_t = alpha z_0 + sigma eps.  Latents are in loop space: the latents of the
pipeline's loop, before `scale_model_input`.  Step 0 is the noisiest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["COLUMNS", "SMALLEST_A", "StepTable"]

COLUMNS = ("timesteps", "a", "b", "n", "input_scale", "alpha", "sigma")
SMALLEST_A = 1e-3
"""Equation (2) divides by a.  A smaller value would amplify the network's rounding errors too much."""


@dataclass(frozen=True, eq=False)
class StepTable:
    """Rows of a sampler's schedule, noisiest step first.

    Attributes:
        timesteps: timesteps as the network gets them.  This and the tensors below are float64 [T] on the CPU.
        a: factor of the noisier latent in (1), never 0.
        b: factor of the network's output in (1).
        n: factor of the fresh noise in (1), exactly 0 if the step draws none.
        input_scale: factor by which the latent is multiplied before it enters the network.
        alpha: factor of the clean latent in the forward process, at the step's noisier side.  NaN if the scheduler has
            no forward process.
        sigma: factor of the noise there, likewise.
        num_train_timesteps: length of the training range that timesteps refer to.
        integer_timesteps: whether the scheduler's timesteps are whole numbers (int64) instead of float32.

    Raises:
        ValueError: a column has another shape or dtype or holds a number that is not finite (alpha and sigma may), the
            table is empty, or an `a` is below `SMALLEST_A`.
    """

    timesteps: Tensor
    a: Tensor
    b: Tensor
    n: Tensor
    input_scale: Tensor
    alpha: Tensor
    sigma: Tensor
    num_train_timesteps: int
    integer_timesteps: bool = False

    def __post_init__(self) -> None:
        for name in COLUMNS:
            column = getattr(self, name)
            if column.dtype != torch.float64 or column.ndim != 1 or len(column) != len(self.timesteps):
                raise ValueError(
                    f"{name} is {column.dtype} {list(column.shape)}: a table of {len(self.timesteps)} steps holds "
                    f"float64 [{len(self.timesteps)}]"
                )
            if name not in ("alpha", "sigma") and not column.isfinite().all():
                raise ValueError(f"{name} = {column.tolist()}: a step is made of finite numbers, neither NaN nor inf")
        if not len(self.timesteps):
            raise ValueError("a table needs at least one step")
        if self.a.abs().min() < SMALLEST_A:
            raise ValueError(f"a = {self.a.tolist()} comes too close to 0: the inverse divides by it")

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def stochastic(self) -> bool:
        """Whether any step draws noise (n is not 0)."""
        return bool((self.n != 0).any())

    def level(self, step: int) -> float:
        """Noise level of a step's noisier side: timestep / num_train_timesteps."""
        return float(self.timesteps[step]) / self.num_train_timesteps

    def forward(self, step: int, z: Tensor, m: Tensor, noise: Tensor | None) -> Tensor:
        """Eq. (1): z_s from z_t.

        Args:
            step: row of the table.
            z: z_t, float32 or float64 of any shape.
            m: the network's output at z_t, same shape.
            noise: white noise eps, same shape.  Not read if n is 0.

        Raises:
            ValueError: the step draws noise and `noise` is None.
        """
        return self.a[step].item() * z + self._drift(step, m, noise)

    def backward(self, step: int, z: Tensor, m: Tensor, noise: Tensor | None) -> Tensor:
        """Eq. (2): z_t from z_s = `z`.  The other arguments are those of `forward`."""
        return (z - self._drift(step, m, noise)) / self.a[step].item()

    def residual_noise(self, step: int, z_s: Tensor, z_t: Tensor, m: Tensor) -> Tensor:
        """The noise with which (1) takes z_t to z_s exactly: eps* = (z_s - a z_t - b m) / n.

        Raises:
            ValueError: the step draws no noise.
        """
        n = self.n[step].item()
        if n == 0:
            raise ValueError(f"step {step} draws no noise (n = 0), so it has no residual noise")
        return (z_s - self.a[step].item() * z_t - self.b[step].item() * m) / n

    def noisy(self, step: int, z_0: Tensor, noise: Tensor) -> Tensor:
        """The clean latent noised to the step's noisier side by the forward process: alpha z_0 + sigma eps.

        Raises:
            ValueError: the scheduler has no forward process.
        """
        alpha, sigma = self.alpha[step].item(), self.sigma[step].item()
        if math.isnan(alpha):
            raise ValueError(
                "this scheduler has no forward process (add_noise or scale_noise) to noise a latent with: switch the "
                "edit losses off (edit_losses=None)"
            )
        return alpha * z_0 + sigma * noise

    def network_timesteps(self) -> Tensor:
        """The timesteps as a pipeline passes them to its network, int64 or float32 [T] on the CPU."""
        return self.timesteps.to(torch.long if self.integer_timesteps else torch.float32)

    def difference(self, other: StepTable) -> str | None:
        """The first column in which the last rows of `other` differ from this table; None where they are the same.

        A table with fewer rows than this one differs in "timesteps".
        """
        if len(other) < len(self):
            return "timesteps"
        last = other.tail(len(self))
        return next(
            (
                name
                for name in COLUMNS
                if not torch.allclose(getattr(last, name), getattr(self, name), rtol=1e-5, atol=1e-7, equal_nan=True)
            ),
            None,
        )

    def tail(self, steps: int) -> StepTable:
        """The table of the last `steps` rows, which are the least noisy.

        Raises:
            ValueError: `steps` is not from 1 to the number of rows.
        """
        if not 1 <= steps <= len(self):
            raise ValueError(f"steps={steps} of a table of {len(self)}: pass 1 to {len(self)}")
        return replace(self, **{name: getattr(self, name)[-steps:] for name in COLUMNS})

    def _drift(self, step: int, m: Tensor, noise: Tensor | None) -> Tensor:
        """The part b m + n eps of (1)."""
        n = self.n[step].item()
        drift = self.b[step].item() * m
        if n == 0:
            return drift
        if noise is None:
            raise ValueError(f"step {step} draws noise (n = {n:.4g}): pass the noise it is to use")
        return drift + n * noise
