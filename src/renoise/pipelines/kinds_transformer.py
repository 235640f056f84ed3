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
    """Qwen-Image scales the guided prediction of each token to the length of its prediction with the prompt.

    Lumina 2 does so with the rows of a map.
    """
    m = u + scale * (c - u)
    return m * (c.norm(dim=-1, keepdim=True) / m.norm(dim=-1, keepdim=True))


def _thousandth(network: Any, t: Any) -> Any:
    return t / 1000


def _first_is_guided(c: Any, u: Any, scale: float) -> Any:
    """Of loops that ask about the prompt first."""
    return u + scale * (c - u)


def _area(pipe: Any, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """FLUX.1 Kontext brings every size to the same area, unless it is told another."""
    return {"height": size[0], "width": size[1], "max_area": size[0] * size[1]}


def _schnell(pipe: Any) -> bool:
    """FLUX.1 dev takes a guidance scale as an input; schnell was distilled to few steps, and takes none."""
    return not pipe.transformer.config.guidance_embeds


_FLUX: Any = {
    "packed": True,
    "statistics": "shift",
    "few_step": _schnell,
    "pooled": lambda config: config.pooled_projection_dim,
    "unequal": True,
    "ignores_guidance": _schnell,
}
_FLUX_LOOP = Loop(time=_thousandth, shared=("img_ids", "txt_ids"))
_QWEN: Any = {
    "guidance": _qwen_guidance,
    "direct": Loop(time=_thousandth, guide=_rescaled, twice=True),
    "packed": True,
    "statistics": "config",
    "frames": True,
    "negative_needed": True,
    "unequal": True,
}
_EDITING: Any = {"task": "editing", "conditions": ("image",)}
_FLUX2: Any = {
    "packed": True,
    "statistics": "batch norm",
    "together": ("image",),
    "unequal": True,
    **_EDITING,
}
_UNBINNED: Any = {"keywords": {"use_resolution_binning": False}}

TRANSFORMERS: dict[str, Family] = {
    "sd3": Family(
        ("StableDiffusion3Pipeline",),
        direct=Loop(),
        statistics="shift",
        pooled=lambda config: config.pooled_projection_dim,
    ),
    "flux": Family(("FluxPipeline",), direct=_FLUX_LOOP, **_FLUX),
    "flux-kontext": Family(
        ("FluxKontextPipeline",),
        direct=_FLUX_LOOP,
        grid=_area,
        refused=lambda pipe: {"max_area": "pass size=(height, width)"},
        **{**_FLUX, **_EDITING, "conditions": ("image", "_auto_resize"), "few_step": None},
    ),
    "flux-controlnet": Family(("FluxControlNetPipeline",), task="control", needs=("control_image",), **_FLUX),
    "flux2": Family(
        ("Flux2KleinPipeline",),
        direct=Loop(time=_thousandth, guide=_first_is_guided, twice=True),
        few_step=lambda pipe: bool(pipe.config.is_distilled),
        ignores_guidance=lambda pipe: bool(pipe.config.is_distilled),
        **_FLUX2,
    ),
    "flux2-dev": Family(("Flux2Pipeline",), direct=Loop(time=_thousandth), **_FLUX2),
    "chroma": Family(
        ("ChromaPipeline",),
        direct=Loop(time=_thousandth, guide=_first_is_guided, twice=True, shared=("img_ids", "txt_ids")),
        packed=True,
        statistics="shift",
        masked=True,
        unequal=True,
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
    "qwen-image": Family(("QwenImagePipeline",), **_QWEN),
    "qwen-image-edit": Family(("QwenImageEditPipeline",), needs=("image",), **_EDITING, **_QWEN),
    "qwen-image-edit-plus": Family(
        ("QwenImageEditPlusPipeline",), needs=("image",), together=("image",), one_picture=True, **_EDITING, **_QWEN
    ),
    "sana": Family(
        ("SanaPipeline",),
        direct=Loop(time=lambda network, t: t * network.config.timestep_scale),
        patch=1,
        width=lambda config: config.caption_channels,
        masked=True,
        **_UNBINNED,
    ),
    "pixart-sigma": Family(
        ("PixArtSigmaPipeline",),
        sampler="diffusion",
        direct=Loop(),
        plain_schedule=True,
        width=lambda config: config.caption_channels,
        masked=True,
        **_UNBINNED,
    ),
    "hunyuan-dit": Family(
        ("HunyuanDiTPipeline",),
        sampler="diffusion",
        direct=Loop(),
        plain_schedule=True,
        width=lambda config: config.cross_attention_dim,
        second=lambda config: config.cross_attention_dim_t5,
        masked=True,
        **_UNBINNED,
    ),
    "aura-flow": Family(("AuraFlowPipeline",), direct=Loop(time=_thousandth), plain_schedule=True, masked=True),
    "lumina2": Family(
        ("Lumina2Pipeline",),
        direct=Loop(time=lambda network, t: 1 - t / 1000, from_network=lambda m: -m, guide=_rescaled, twice=True),
        statistics="shift",
        width=lambda config: config.cap_feat_dim,
        masked=True,
        unequal=True,
    ),
}
"""A row for each kind, by its name."""
