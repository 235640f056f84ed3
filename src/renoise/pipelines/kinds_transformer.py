"""The kinds of pipelines whose network is a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from renoise.pipelines.kind import Family, Loop

__all__ = ["TRANSFORMERS"]


def _z_image_guidance(pipe: Any, scale: float) -> dict[str, Any]:
    """Z-Image computes c + g (c - u).  Its truncation counts passes as steps here, so it is switched off."""
    return {"guidance_scale": scale - 1, "cfg_truncation": None}


def _qwen_guidance(pipe: Any, scale: float) -> dict[str, Any]:
    """Classifier-free guidance, or the scale as an input of the network if it was distilled for that."""
    distilled = pipe.transformer.config.guidance_embeds
    return {"true_cfg_scale": 1.0, "guidance_scale": scale} if distilled else {"true_cfg_scale": scale}


def _stacked(maps: Sequence[Any]) -> Any:
    """Z-Image takes and returns a list of videos of one frame, and predicts the velocity towards the image."""
    import torch

    return -torch.stack(list(maps)).squeeze(2)


def _rescaled(c: Any, u: Any, scale: float) -> Any:
    """Qwen-Image scales the guided prediction of each token to the length of its prediction with the prompt."""
    m = u + scale * (c - u)
    return m * (c.norm(dim=-1, keepdim=True) / m.norm(dim=-1, keepdim=True))


def _thousandth(network: Any, t: Any) -> Any:
    return t / 1000


TRANSFORMERS: dict[str, Family] = {
    "sd3": Family(
        ("StableDiffusion3Pipeline",),
        direct=Loop(),
        statistics="shift",
        pooled=lambda config: config.pooled_projection_dim,
    ),
    "flux": Family(
        ("FluxPipeline",),
        direct=Loop(time=_thousandth, shared=("img_ids", "txt_ids")),
        packed=True,
        statistics="shift",
        few_step=lambda pipe: not pipe.transformer.config.guidance_embeds,
        pooled=lambda config: config.pooled_projection_dim,
        unequal=True,
        ignores_guidance=lambda pipe: not pipe.transformer.config.guidance_embeds,
    ),
    "flux2": Family(
        ("Flux2KleinPipeline",),
        direct=Loop(time=_thousandth, guide=lambda c, u, scale: u + scale * (c - u), twice=True),
        packed=True,
        statistics="batch norm",
        few_step=lambda pipe: bool(pipe.config.is_distilled),
        unequal=True,
        ignores_guidance=lambda pipe: bool(pipe.config.is_distilled),
    ),
    "z-image": Family(
        ("ZImagePipeline",),
        guidance=_z_image_guidance,
        direct=Loop(
            latents="x",
            timestep="t",
            time=lambda network, t: (1000 - t) / 1000,
            to_network=lambda z: list(z.unsqueeze(2).unbind()),
            from_network=_stacked,
            guide=lambda c, u, scale: c + (scale - 1) * (c - u),
        ),
        statistics="shift",
        width=lambda config: config.cap_feat_dim,
        unequal=True,
    ),
    "qwen-image": Family(
        ("QwenImagePipeline",),
        guidance=_qwen_guidance,
        direct=Loop(time=_thousandth, guide=_rescaled, twice=True),
        packed=True,
        statistics="config",
        frames=True,
        negative_needed=True,
        unequal=True,
    ),
    "sana": Family(
        ("SanaPipeline",),
        direct=Loop(time=lambda network, t: t * network.config.timestep_scale),
        patch=1,
        keywords={"use_resolution_binning": False},
        width=lambda config: config.caption_channels,
        masked=True,
    ),
}
"""A row for each kind, by its name."""
