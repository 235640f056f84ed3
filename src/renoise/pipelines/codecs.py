"""Pictures to loop-space latents and back, through a pipeline's own auto-encoder.

Pixels are [batch, 3, height, width] in [0, 1]; latents are float32, as the pipeline's denoising loop carries them: maps
[batch, channels, height / f, width / f], or for `packed` families token sequences [batch, tokens, 4 channels], one
token for 2 x 2 latents, row by row.  The scaling is the one that the stock pipeline applies before its decoder, so that
decoding here equals its own decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from renoise.pipelines.families import FAMILIES, Family, family

__all__ = ["decode", "encode"]


@torch.no_grad()
def encode(pipe: Any, pixels: Tensor) -> Tensor:
    """Latents of pictures: the mode of the encoder's distribution, scaled and laid out as the loop carries them.

    A half-precision auto-encoder that is marked `force_upcast` runs in float32 and gets its precision back afterwards.

    Raises:
        TypeError: an unsupported pipeline.
        ValueError: not a float picture batch in [0, 1], or sides that are no multiples of what the auto-encoder needs.
    """
    rules = FAMILIES[family(pipe)]
    mean, std = _statistics(pipe.vae, rules)
    factor = pipe.vae_scale_factor * (2 if rules.packed else 1)
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
        pictures = (2 * pixels.float() - 1).to(pipe._execution_device, dtype)
        coded = pipe.vae.encode(pictures.unsqueeze(2) if rules.frames else pictures)
    # deterministic auto-encoders have no distribution
    x = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded[0]
    x = x.squeeze(2) if rules.frames else x
    x = _patched(x.float()) if rules.packed else x.float()
    z = (x - mean.to(x.device)) / std.to(x.device)
    if not z.isfinite().all():
        raise ValueError(
            f"the picture's latents are not finite in {pipe.vae.dtype}: it overflows; do pipe.vae.to(torch.float32)"
        )
    return z.flatten(2).transpose(1, 2).contiguous() if rules.packed else z


@torch.no_grad()
def decode(pipe: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures of latents: float32 [batch, 3, height, width], clipped to [0, 1].

    Args:
        latents: as `encode` returns them.
        size: (height, width) of the pictures; token sequences do not know their shape.

    Raises:
        TypeError: an unsupported pipeline.
        ValueError: not latents of this auto-encoder and size.
    """
    rules = FAMILIES[family(pipe)]
    packed = rules.packed
    mean, std = _statistics(pipe.vae, rules)
    height, width = (side // pipe.vae_scale_factor for side in size)
    config = pipe.vae.config
    channels = config.z_dim if rules.frames else config.latent_channels
    expected = (height // 2 * (width // 2), 4 * channels) if packed else (channels, height, width)
    if latents.shape[1:] != expected:
        raise ValueError(
            f"at {size[0]} x {size[1]} this auto-encoder decodes {[len(latents), *expected]}, not {list(latents.shape)}"
        )
    z = latents.to(pipe._execution_device, torch.float32)
    if packed:
        z = z.transpose(1, 2).reshape(len(z), -1, height // 2, width // 2)
    x = z * std.to(z.device) + mean.to(z.device)
    x = _unpatched(x) if packed else x
    with _full_precision(pipe.vae) as dtype:
        x = x.unsqueeze(2) if rules.frames else x
        pixels: Tensor = pipe.vae.decode(x.to(dtype), return_dict=False)[0]
    pixels = pixels.squeeze(2) if rules.frames else pixels
    return (pixels.float() * 0.5 + 0.5).clamp(0, 1)


def _statistics(vae: Any, rules: Family) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the auto-encoder's latents, [1, 1 or channels, 1, 1]: x = z std + mean.

    Those that the stock pipeline reads; where it ignores some of the configuration, that is ignored.
    """
    mean, std = torch.zeros(1), torch.ones(1)
    if rules.statistics == "batch norm":
        mean = vae.bn.running_mean.float()
        std = (vae.bn.running_var.float() + vae.config.batch_norm_eps).sqrt()
    elif rules.statistics == "config":
        given = [getattr(vae.config, f"latents_{part}", None) for part in ("mean", "std")]
        if None not in given:
            mean, std = (torch.tensor(values) for values in given)
        if rules.packed:
            mean, std = (part.repeat_interleave(4) for part in (mean, std))
    elif rules.statistics == "shift":
        mean = mean + vae.config.shift_factor
    scale: float = getattr(vae.config, "scaling_factor", 1.0)
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1) / scale


def _patched(x: Tensor) -> Tensor:
    """[batch, c, 2 h, 2 w] -> [batch, 4 c, h, w]."""
    return nn.functional.pixel_unshuffle(x, 2)


def _unpatched(x: Tensor) -> Tensor:
    return nn.functional.pixel_shuffle(x, 2)


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
