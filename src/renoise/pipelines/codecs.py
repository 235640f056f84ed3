"""Pictures to loop-space latents and back, through a pipeline's own auto-encoder.

Pixels are [batch, 3, height, width] in [0, 1]; latents are float32, as the pipeline's denoising loop carries them: maps
[batch, channels, height / f, width / f], or for `packed` families token sequences [batch, tokens, 4 channels], one
token for 2 x 2 latents, row by row.  The scaling is the one that the stock pipeline applies before its decoder, so that
decoding here equals its own decoding.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from renoise.core.editing import MAPS, Layout
from renoise.pipelines.families import Family

__all__ = ["Codec"]

_UPCASTING = threading.Lock()


class Codec:
    """The auto-encoder of a pipeline, with the scaling and the layout that the pipeline's loop uses."""

    def __init__(self, pipe: Any, family: Family, device: torch.device) -> None:
        """Takes a pipeline, its row, and where its networks run, which a pipeline finds out by a walk through them."""
        self._vae, self._family, self._device = pipe.vae, family, device
        self._upcasts = hasattr(pipe, "upcast_vae")
        self._factor: int = pipe.vae_scale_factor
        self._mean, self._std = _statistics(pipe.vae, family)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of pictures: the mode of the encoder's distribution, scaled and laid out as the loop carries them.

        Its precision is that in which the stock pipeline decodes.  Pipelines of SDXL run a float16 auto-encoder that is
        marked `force_upcast` in float32, and so does this; it gets its precision back afterwards.

        Args:
            pixels: floats [batch, 3, height, width] in [0, 1].

        Raises:
            ValueError: not such pictures, or sides that are no multiples of what the auto-encoder needs.
        """
        packed, frames = self._family.packed, self._family.frames
        factor = self._factor * (2 if packed else 1)
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(f"encode takes floats [batch, 3, height, width], not {pixels.dtype} {list(pixels.shape)}")
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):  # NaN fails too
            low, high = pixels.min().item(), pixels.max().item()
            raise ValueError(f"pixels from {low:g} to {high:g}: encode takes [0, 1]; map [-1, 1] by x / 2 + 0.5")
        if pixels.shape[2] % factor or pixels.shape[3] % factor:
            raise ValueError(
                f"height and width {list(pixels.shape[2:])} must be multiples of {factor}: images.fit does that"
            )
        with _stock_precision(self._vae, self._upcasts) as dtype:
            pictures = (2 * pixels.float() - 1).to(self._device, dtype)
            coded = self._vae.encode(pictures.unsqueeze(2) if frames else pictures)
        # deterministic auto-encoders have no distribution
        x = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded[0]
        x = x.squeeze(2) if frames else x
        x = nn.functional.pixel_unshuffle(x.float(), 2) if packed else x.float()
        z = (x - self._mean.to(x.device)) / self._std.to(x.device)
        self._check_finite(z, "latents")
        return z.flatten(2).transpose(1, 2).contiguous() if packed else z.contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Pictures of latents: float32 [batch, 3, height, width], clipped to [0, 1].

        Args:
            latents: as `encode` returns them.
            size: (height, width) of the pictures in pixels; token sequences do not know their shape.

        Raises:
            ValueError: not latents of this auto-encoder and size, or pictures that are not finite.
        """
        packed, frames, config = self._family.packed, self._family.frames, self._vae.config
        height, width = (side // self._factor for side in size)
        channels = config.z_dim if frames else config.latent_channels
        expected = (height // 2 * (width // 2), 4 * channels) if packed else (channels, height, width)
        if latents.shape[1:] != expected:
            raise ValueError(
                f"at {size[0]} x {size[1]} this auto-encoder decodes {[len(latents), *expected]}, not "
                f"{list(latents.shape)}"
            )
        z = latents.to(self._device, torch.float32)
        if packed:
            z = z.transpose(1, 2).reshape(len(z), -1, height // 2, width // 2)
        x = z * self._std.to(z.device) + self._mean.to(z.device)
        x = nn.functional.pixel_shuffle(x, 2) if packed else x
        with _stock_precision(self._vae, self._upcasts) as dtype:
            x = x.unsqueeze(2) if frames else x
            pixels: Tensor = self._vae.decode(x.to(dtype), return_dict=False)[0]
        pixels = pixels.squeeze(2) if frames else pixels
        self._check_finite(pixels, "decoded pixels")
        return (pixels.float() * 0.5 + 0.5).clamp(0, 1)

    def layout(self, size: tuple[int, int]) -> Layout:
        """How latents of pictures of this size are laid out as maps in the resolution of the auto-encoder."""
        if not self._family.packed:
            return MAPS
        height, width = (side // self._factor // 2 for side in size)

        def to_maps(z: Tensor) -> Tensor:
            return nn.functional.pixel_shuffle(z.transpose(1, 2).reshape(len(z), -1, height, width), 2)

        def from_maps(maps: Tensor) -> Tensor:
            return nn.functional.pixel_unshuffle(maps, 2).flatten(2).transpose(1, 2)

        return Layout(to_maps, from_maps)

    def _check_finite(self, values: Tensor, what: str) -> None:
        if not values.isfinite().all():
            dtype = str(self._vae.dtype).removeprefix("torch.")
            half = self._vae.dtype in (torch.float16, torch.bfloat16)
            remedy = "it overflows; do pipe.vae.to(torch.float32)" if half else "so are its weights or its input"
            raise ValueError(f"the picture's {what} are not finite from the auto-encoder in {dtype}: {remedy}")


def _statistics(vae: Any, family: Family) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the auto-encoder's latents, [1, 1 or channels, 1, 1]: x = z std + mean.

    Those that the stock pipeline reads; where it ignores some of the configuration, that is ignored.
    """
    mean, std = torch.zeros(1), torch.ones(1)
    if family.statistics == "batch norm":
        mean = vae.bn.running_mean.float()
        std = (vae.bn.running_var.float() + vae.config.batch_norm_eps).sqrt()
    elif family.statistics == "config":
        given = [getattr(vae.config, f"latents_{part}", None) for part in ("mean", "std")]
        if None not in given:
            mean, std = (torch.tensor(values) for values in given)
        if family.packed:
            mean, std = (part.repeat_interleave(4) for part in (mean, std))
    elif family.statistics == "shift":
        mean = mean + vae.config.shift_factor
    scale: float = getattr(vae.config, "scaling_factor", 1.0)
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1) / scale


@contextmanager
def _stock_precision(vae: Any, upcasts: bool) -> Iterator[torch.dtype]:
    """float32 where the stock pipeline changes to it (`upcasts`); yields the dtype to run in."""
    dtype = vae.dtype
    if not upcasts or dtype != torch.float16 or not getattr(vae.config, "force_upcast", False):
        yield dtype
        return
    with _UPCASTING:  # two pipelines may share an auto-encoder
        try:
            # not vae.to, which logs a warning about any cast
            nn.Module.to(vae, torch.float32)
            yield torch.float32
        finally:
            nn.Module.to(vae, dtype)
