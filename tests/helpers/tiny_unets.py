"""Tiny pipelines of the real classes that put the networks of SD and SDXL to other uses, in the manner of `tiny`."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter
from torch import nn

from tests.helpers import tiny
from tests.helpers.tiny import UNSAFE, quiet, seeded


def vae() -> Any:
    """With latents of order 1."""
    return tiny.vae(scaling_factor=4.0, force_upcast=False)


def sd(name: str, scheduler: Any = None, **components: Any) -> Any:
    """The pipeline of that class, of the components of Stable Diffusion and of others."""
    parts = tiny._parts(scheduler or tiny.ddim(), {"vae": vae(), **components})
    return quiet(getattr(diffusers, name)(**parts, **UNSAFE))


def sdxl(name: str, scheduler: Any = None, **components: Any) -> Any:
    """The pipeline of that class, of the components of SDXL and of others."""
    base = tiny.sdxl(scheduler or tiny.ddim(), vae=vae())
    kind = getattr(diffusers, name)
    known = kind._get_signature_keys(kind)
    taken = {key: part for key, part in base.components.items() if key in {*known[0], *known[1]}}
    return quiet(kind(**{**taken, **components}))


def sd_inpainting(scheduler: Any = None) -> Any:
    """StableDiffusionInpaintPipeline of a network that sees a mask and a masked picture's latents beside its own."""
    return sd("StableDiffusionInpaintPipeline", scheduler, unet=tiny.unet(in_channels=9))


CROSS_FIRST: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
"""As in the real ones, whose last level has no attention: a T2I-Adapter adds its features in that order."""


def sd_adapter(scheduler: Any = None) -> Any:
    """StableDiffusionAdapterPipeline; its `image` is [batch, 3, height, width] in [0, 1]."""
    parts = {"adapter": _adapter(), "unet": tiny.unet(**CROSS_FIRST)}
    return sd("StableDiffusionAdapterPipeline", scheduler, **parts)


def sdxl_adapter(scheduler: Any = None) -> Any:
    """StableDiffusionXLAdapterPipeline; its `image` likewise."""
    parts = {"adapter": _adapter(), "unet": tiny.unet(**CROSS_FIRST, **tiny.SDXL)}
    return sdxl("StableDiffusionXLAdapterPipeline", scheduler, **parts)


def _adapter() -> Any:
    """A T2I-Adapter with a feature for each level of `tiny.unet`."""
    with seeded(4):
        return T2IAdapter(in_channels=3, channels=[8, 16], num_res_blocks=1, downscale_factor=4).eval()


def sdxl_controlnet(scheduler: Any = None) -> Any:
    """StableDiffusionXLControlNetPipeline; its `image` likewise."""
    parts = {"conditioning_embedding_out_channels": (8, 16, 16)}
    network = _opened(ControlNetModel.from_unet(tiny.unet(1, **tiny.SDXL), **parts))
    return sdxl("StableDiffusionXLControlNetPipeline", scheduler, controlnet=network)


def sdxl_controlnet_union(scheduler: Any = None) -> Any:
    """StableDiffusionXLControlNetUnionPipeline with two kinds of control: lists of control_image and control_mode."""
    unet = tiny.unet(1, **tiny.SDXL)
    names = inspect.signature(ControlNetUnionModel.__init__).parameters
    settings = {key: value for key, value in unet.config.items() if key in names}
    sizes = {"num_control_type": 2, "num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8}
    with seeded(3):
        network = ControlNetUnionModel(**settings, **sizes, conditioning_embedding_out_channels=(8, 16, 16))
    return sdxl("StableDiffusionXLControlNetUnionPipeline", scheduler, controlnet=_opened(network))


def _opened(network: Any) -> Any:
    """A ControlNet whose answers are not zero, as they are when its training begins."""
    with seeded(3):
        for layer in [*network.controlnet_down_blocks, network.controlnet_mid_block]:
            nn.init.normal_(layer.weight, std=0.3)
    return network.eval()
