"""Pictures to loop-space latents and back, through a pipeline's own auto-encoder, one short rule per family.

Pixels are [batch, 3, height, width] in [0, 1]; latents are float32, as the pipeline's denoising loop sees them.  The
scaling is the one that the stock pipeline applies before its decoder, so that decoding here equals its own decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "decode", "encode", "family"]

Family = Literal["sd", "sdxl"]

# diffusers' classes (subclasses included) and the rules that they follow
FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "LatentConsistencyModelPipeline": "sd",
}


def family(pipe: Any) -> Family:
    """Which rules a pipeline follows: "sd" (Stable Diffusion 1.x, 2.x, Turbo, latent consistency) or "sdxl".

    Raises:
        TypeError: neither; names the class and what works.
    """
    import diffusers

    for name, rules in FAMILIES.items():
        if isinstance(pipe, getattr(diffusers, name)):
            return rules
    raise TypeError(
        f"{type(pipe).__name__} is not supported; {', '.join(FAMILIES)} are. A pipeline for another task on the same "
        "networks becomes one of them by StableDiffusionPipeline.from_pipe(pipe, dtype=pipe.dtype)"
    )


@torch.no_grad()
def encode(pipe: Any, pixels: Tensor) -> Tensor:
    """Latents [batch, channels, height / f, width / f] of pictures: the mode of the encoder's distribution, scaled.

    A half-precision auto-encoder that is marked `force_upcast` runs in float32 and gets its precision back afterwards.

    Raises:
        TypeError: an unsupported pipeline.
        ValueError: not a float picture batch in [0, 1], or sides that are no multiples of the auto-encoder's factor f.
    """
    mean, std = _statistics(pipe)
    factor = pipe.vae_scale_factor
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
        raise ValueError(f"encode takes floats [batch, 3, height, width], not {pixels.dtype} {list(pixels.shape)}")
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):  # NaN fails too
        low, high = pixels.min().item(), pixels.max().item()
        raise ValueError(f"pixels from {low:g} to {high:g}: encode takes [0, 1]; map [-1, 1] by x / 2 + 0.5")
    if pixels.shape[2] % factor or pixels.shape[3] % factor:
        raise ValueError(
            f"height and width {list(pixels.shape[2:])} must be multiples of {factor}: images.fit does that"
        )
    with _full_precision(pipe.vae) as dtype:
        coded = pipe.vae.encode((2 * pixels.float() - 1).to(pipe._execution_device, dtype))
    # tiny auto-encoders have no distribution
    latents: Tensor = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded.latents
    scaling_factor: float = pipe.vae.config.scaling_factor
    return (latents.float() - mean.to(latents.device)) * scaling_factor / std.to(latents.device)


@torch.no_grad()
def decode(pipe: Any, latents: Tensor) -> Tensor:
    """Pictures of latents: float32 [batch, 3, height, width], clipped to [0, 1].

    Raises:
        TypeError: an unsupported pipeline.
        ValueError: not latents of this auto-encoder.
    """
    mean, std = _statistics(pipe)
    channels = pipe.vae.config.latent_channels
    if latents.ndim != 4 or latents.shape[1] != channels:
        raise ValueError(f"this auto-encoder decodes [batch, {channels}, height, width], not {list(latents.shape)}")
    latents = latents.to(pipe._execution_device, torch.float32)
    latents = latents * std.to(latents.device) / pipe.vae.config.scaling_factor + mean.to(latents.device)
    with _full_precision(pipe.vae) as dtype:
        pixels: Tensor = pipe.vae.decode(latents.to(dtype), return_dict=False)[0]
    return (pixels.float() * 0.5 + 0.5).clamp(0, 1)


def _statistics(pipe: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the auto-encoder's latents per channel: x = z std / scaling_factor + mean.

    Only the SDXL pipeline reads them; the other stock pipelines ignore any in the configuration, so they are ignored.
    """
    if family(pipe) == "sdxl":
        mean, std = (getattr(pipe.vae.config, f"latents_{name}", None) for name in ("mean", "std"))
        if mean is not None and std is not None:
            return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    return torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)


@contextmanager
def _full_precision(vae: Any) -> Iterator[torch.dtype]:
    """float32 for a half-precision auto-encoder that overflows (`force_upcast`); yields the dtype to run in."""
    dtype = vae.dtype
    if dtype not in (torch.float16, torch.bfloat16) or not getattr(vae.config, "force_upcast", False):
        yield dtype
        return
    try:
        # not vae.to, which logs a warning about any cast
        nn.Module.to(vae, torch.float32)
        yield torch.float32
    finally:
        nn.Module.to(vae, dtype)
