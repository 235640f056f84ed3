"""The kinds of pipelines whose network is a UNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from renoise.pipelines.kind import Family, Loop, uncompiled

__all__ = ["UNETS"]


def _unet_width(config: Any) -> int | None:
    """Not told by a UNet that projects its embeddings first."""
    width = config.cross_attention_dim
    return width if isinstance(width, int) and config.encoder_hid_dim_type is None else None


def _sdxl_pooled(config: Any) -> int | None:
    """What is left beside six numbers of size and crop."""
    whole, numbers = config.projection_class_embeddings_input_dim, config.addition_time_embed_dim
    return None if whole is None or numbers is None else whole - 6 * numbers


def _from_a_picture(pipe: Any, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """Pictures of the wanted size, of which nothing is left in the latents that the inversion hands over."""
    import torch

    return {"image": torch.zeros(count, 3, *size), "strength": 1.0}


def _painted_all_over(pipe: Any, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """The same with a mask that is white everywhere, so that nothing of those pictures is kept."""
    import torch

    mask = {"mask_image": torch.ones(count, 1, *size)}
    return {"height": size[0], "width": size[1], **_from_a_picture(pipe, count, size), **mask}


_STARTING_PICTURE = "the picture that is inverted takes its place; pass that as image= of invert"


def _no_start(pipe: Any) -> Mapping[str, str]:
    """The inversion decides where the loop starts."""
    return {"image": _STARTING_PICTURE}


def _no_mask(pipe: Any) -> Mapping[str, str]:
    """A loop that pastes the picture back after every step cannot be undone; a network that sees the mask can."""
    if uncompiled(pipe.unet).config.in_channels > pipe.vae.config.latent_channels:
        return {}
    pasted = "the loop of this pipeline pastes the picture back outside of the mask after every step, which cannot be "
    instead = "undone; leave it out here, and hand a mask to edit, as mask="
    mask = dict.fromkeys(("mask_image", "masked_image_latents"), pasted + instead)
    return {"image": _STARTING_PICTURE, **mask, "padding_mask_crop": "pass a picture that is cropped already"}


_LOOP = Loop(latents="sample")
_SD: Any = {"patch": 0, "sampler": "diffusion", "width": _unet_width}
_SDXL: Any = {**_SD, "statistics": "config", "pooled": _sdxl_pooled}
_START: Any = {"task": "start", "direct": _LOOP, "plain_schedule": True, "grid": _from_a_picture, "refused": _no_start}
_PAINT: Any = {
    **_START,
    "grid": _painted_all_over,
    "refused": _no_mask,
    "conditions": ("image", "mask_image", "masked_image_latents"),
}
_CONTROL: Any = {"task": "control", "needs": ("image",)}
_PERTURBED: Any = {"exchanges_attention": True}

UNETS: dict[str, Family] = {
    "sd": Family(("StableDiffusionPipeline",), direct=_LOOP, plain_schedule=True, **_SD),
    "lcm": Family(("LatentConsistencyModelPipeline",), direct=_LOOP, plain_schedule=True, **_SD),
    "sdxl": Family(("StableDiffusionXLPipeline",), direct=_LOOP, plain_schedule=True, **_SDXL),
    "sd-pag": Family(("StableDiffusionPAGPipeline",), **_PERTURBED, **_SD),
    "sdxl-pag": Family(("StableDiffusionXLPAGPipeline",), **_PERTURBED, **_SDXL),
    "sd-img2img": Family(("StableDiffusionImg2ImgPipeline",), **_START, **_SD),
    "sdxl-img2img": Family(("StableDiffusionXLImg2ImgPipeline",), **_START, **_SDXL),
    "sd-inpaint": Family(("StableDiffusionInpaintPipeline",), **_PAINT, **_SD),
    "sdxl-inpaint": Family(("StableDiffusionXLInpaintPipeline",), **_PAINT, **_SDXL),
    "sd-controlnet": Family(("StableDiffusionControlNetPipeline",), **_CONTROL, **_SD),
    "sdxl-controlnet": Family(("StableDiffusionXLControlNetPipeline",), **_CONTROL, **_SDXL),
    "sdxl-controlnet-union": Family(
        ("StableDiffusionXLControlNetUnionPipeline",),
        task="control",
        needs=("control_image", "control_mode"),
        together=("control_image",),
        **_SDXL,
    ),
    "sd-adapter": Family(("StableDiffusionAdapterPipeline",), **_CONTROL, **_SD),
    "sdxl-adapter": Family(
        ("StableDiffusionXLAdapterPipeline",),
        keywords={"adapter_conditioning_factor": 1e9},  # a share of the steps, and a round is a pass here
        **_CONTROL,
        **_SDXL,
    ),
}
"""A row for each kind, by its name."""
