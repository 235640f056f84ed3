"""An inversion replayed by ComfyUI's own sampler, in its own SamplerCustomAdvanced.

The noise of a NOISE is where a sampler starts, and that of its `noise_sampler` is what its steps add.  Both are handed
what the inversion found, so whatever guider is wired regenerates the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .inversion import Inversion

__all__ = ["ReplayNoise", "replay_sampler"]


class ReplayNoise:
    """A NOISE of ComfyUI, from which its samplers start at z_T of an inversion.

    Attributes:
        seed: what model patches that draw random numbers get.
    """

    def __init__(self, inversion: Inversion, seed: int = 0) -> None:
        self._inversion, self.seed = inversion, seed

    def generate_noise(self, input_latent: Mapping[str, Any]) -> Tensor:
        """The noise that mixes with these latents to z_T.

        Raises:
            ValueError: the latents are neither empty nor those of the inversion.
        """
        inversion, samples = self._inversion, input_latent["samples"]
        noise_factor, latent_factor = inversion.start
        z_T = inversion.trajectory.z_T.view(inversion.samples.shape)  # noqa: N806 - the letters of the paper
        if samples.shape != inversion.samples.shape:
            raise ValueError(
                f"the latent is {list(samples.shape)} and the inversion {list(inversion.samples.shape)}: wire the "
                "latent that was inverted, or an empty one of its size and batch"
            )
        under = torch.zeros_like(z_T)
        if samples.count_nonzero():
            if not torch.allclose(samples.cpu().float(), inversion.samples, atol=1e-4):
                raise ValueError(
                    "the latent is another picture than the inversion's: wire the latent that was inverted, or an "
                    "empty one of its size and batch"
                )
            under = inversion.z_0.view(inversion.samples.shape)
        return (z_T - latent_factor * under) / noise_factor


def replay_sampler(inversion: Inversion) -> Any:
    """A SAMPLER of ComfyUI: the sampler function of the inversion, whose steps add the noise that was found.

    Raises:
        ValueError: this ComfyUI has no such sampler; or, raised while sampling, noise levels that the inversion lacks.
    """
    name, options = inversion.sampler
    found, levels = inversion.trajectory.noises, inversion.table.sigma
    shape = inversion.samples.shape

    def noise_sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        assert found is not None
        distance = (levels - float(sigma)).abs()
        step = int(distance.argmin())
        if distance[step] > 1e-4 * levels[step]:
            raise ValueError(
                f"sigma={float(sigma):g} is no noise level of the inversion: wire the sigmas of the replay sampler"
            )
        return found[step].view(shape).to(torch.as_tensor(sigma).device)

    drawing = {"noise_sampler": noise_sampler} if inversion.table.stochastic else {}
    try:
        return comfy.samplers.ksampler(name, {**options, **drawing})
    except AttributeError as error:
        raise ValueError(
            f"this ComfyUI has no sampler {name!r}, with which the inversion was made: use ReNoise Edit, which needs "
            "none"
        ) from error
