"""The kinds of pipelines whose network is a UNet."""

from __future__ import annotations

from typing import Any

from renoise.pipelines.kind import Family, Loop

__all__ = ["UNETS"]


def _unet_width(config: Any) -> int | None:
    """Not told by a UNet that projects its embeddings first."""
    width = config.cross_attention_dim
    return width if isinstance(width, int) and config.encoder_hid_dim_type is None else None


def _sdxl_pooled(config: Any) -> int | None:
    """What is left beside six numbers of size and crop."""
    whole, numbers = config.projection_class_embeddings_input_dim, config.addition_time_embed_dim
    return None if whole is None or numbers is None else whole - 6 * numbers


_UNET = Loop(latents="sample")
_SDXL: Any = {"statistics": "config", "patch": 0, "width": _unet_width, "pooled": _sdxl_pooled}

UNETS: dict[str, Family] = {
    "sd": Family(("StableDiffusionPipeline",), direct=_UNET, patch=0, plain_schedule=True, width=_unet_width),
    "lcm": Family(("LatentConsistencyModelPipeline",), direct=_UNET, patch=0, plain_schedule=True, width=_unet_width),
    "sdxl": Family(("StableDiffusionXLPipeline",), direct=_UNET, plain_schedule=True, **_SDXL),
    "sd-controlnet": Family(("StableDiffusionControlNetPipeline",), patch=0, width=_unet_width),
    "sdxl-controlnet": Family(("StableDiffusionXLControlNetPipeline",), **_SDXL),
}
"""A row for each kind, by its name."""
