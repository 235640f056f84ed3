r"""Sampler steps as rows of numbers.

One step of a sampler takes the noisier latent z_t to the less noisy z_s.  For the samplers handled here it is affine,
with coefficients that depend on the step alone (eq. 1 of ReNoise, Garibi et al., ECCV 2024):

    z_s = a z_t + b m(z_t) + n eps                      (1)

m is the network's output (noise, velocity or clean image, guidance included) and eps fresh white noise.  The way back
is derived from the same row, never written down a second time:

    z_t = (z_s - b m(z_t) - n eps) / a                  (2)

Nothing here knows where the numbers come from; `renoise.pipelines.measure` finds them on a live diffusers scheduler.

The forward process of training is z_t = alpha z_0 + sigma eps.  Latents are in loop space: what the pipeline's loop
carries, before `scale_model_input`.  Step 0 is the noisiest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["COLUMNS", "SMALLEST_A", "StepTable"]

COLUMNS = ("timesteps", "a", "b", "n", "input_scale", "alpha", "sigma")
SMALLEST_A = 1e-3
"""Equation (2) divides by a: a smaller one would multiply the network's rounding beyond use."""


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
        integer_timesteps: whether the scheduler hands timesteps over as whole numbers (int64) instead of float32.
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
                raise ValueError(f"{name} = {column.tolist()}: a step is made of finite numbers")
        if not len(self.timesteps):
            raise ValueError("a table needs at least one step")
        if self.a.abs().min() < SMALLEST_A:
            raise ValueError(f"a = {self.a.tolist()} comes too close to 0: (2) divides by it")

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

    def network_timesteps(self) -> Tensor:
        """The timesteps as a pipeline hands them to its network, [T] on the CPU: int64 or float32."""
        return self.timesteps.to(torch.long if self.integer_timesteps else torch.float32)

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
