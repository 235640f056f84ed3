"""Tiny pipelines of the real transformer classes that came later, and of editing models, in the manner of `tiny_flow`.

The editing pipelines of Qwen-Image bring every condition picture to 1024 x 1024 pixels, which would take a minute for
each network pass here.  `small_conditions` makes that 64 x 64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
from diffusers import (
    AuraFlowTransformer2DModel,
    ChromaTransformer2DModel,
    FluxControlNetModel,
    HunyuanDiT2DModel,
    Lumina2Transformer2DModel,
    PixArtTransformer2DModel,
)
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

from tests.helpers import tiny, tiny_flow
from tests.helpers.tiny import UNSAFE, WIDTH
from tests.helpers.tiny_flow import HEADS, TOKENS, _embedded, _liven

FACTOR_8: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
"""Of an auto-encoder."""

# ---------------------------------------------------------------- editing


def kontext(scheduler: Any = None, **components: Any) -> Any:
    """FluxKontextPipeline; with `_auto_resize=False` its `image` keeps its size."""
    parts: dict[str, Any] = {"vae": tiny_flow.vae(), "transformer": tiny_flow.flux_transformer()}
    return _embedded(
        diffusers.FluxKontextPipeline, scheduler or tiny_flow.flow_dynamic(), parts, components, encoders=2
    )


def qwen_edit(scheduler: Any = None, **components: Any) -> Any:
    """QwenImageEditPipeline; its `image` is a picture, or a list of one each."""
    return _qwen_edit(diffusers.QwenImageEditPipeline, scheduler, components)


def qwen_edit_plus(scheduler: Any = None, **components: Any) -> Any:
    """QwenImageEditPlusPipeline, which makes one picture at a time; its `image` is a list of references."""
    return _qwen_edit(diffusers.QwenImageEditPlusPipeline, scheduler, components)


def _qwen_edit(kind: Any, scheduler: Any, components: dict[str, Any]) -> Any:
    parts: dict[str, Any] = {
        "vae": tiny_flow.qwen_vae(),
        "transformer": tiny_flow.qwen_transformer(),
        "processor": None,
    }
    return _embedded(kind, scheduler or tiny_flow.flow_qwen(), parts, components)


@contextmanager
def small_conditions() -> Iterator[None]:
    """Inside, condition pictures have 64 x 64 pixels where Qwen-Image asks for 1024 x 1024 or 384 x 384."""
    modules = pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
    kept = [module.calculate_dimensions for module in modules]
    for module, stock in zip(modules, kept, strict=True):
        setattr(module, stock.__name__, lambda area, ratio, stock=stock: stock(64 * 64, ratio))
    try:
        yield
    finally:
        for module, stock in zip(modules, kept, strict=True):
            setattr(module, stock.__name__, stock)


def flux2_dev(scheduler: Any = None, **components: Any) -> Any:
    """Flux2Pipeline, of FLUX.2 dev: guidance is an input of the network; its `image` is a list of references."""
    transformer = tiny_flow.flux2_transformer(guidance_embeds=True)
    parts: dict[str, Any] = {"vae": tiny_flow.flux2_vae(), "transformer": transformer}
    return _embedded(diffusers.Flux2Pipeline, scheduler or tiny_flow.flow_dynamic(), parts, components)


# ---------------------------------------------------------------- control


def flux_controlnet(scheduler: Any = None, **components: Any) -> Any:
    """FluxControlNetPipeline; its `control_image` is [batch, 3, height, width] in [-1, 1]."""
    settings = {key: value for key, value in tiny_flow.FLUX.items() if key != "guidance_embeds"}
    network = _liven(FluxControlNetModel, 3, {**settings, "guidance_embeds": True}, controlnet=0.3)
    parts: dict[str, Any] = {
        "vae": tiny_flow.vae(),
        "transformer": tiny_flow.flux_transformer(),
        "controlnet": network,
    }
    scheduler = scheduler or tiny_flow.flow_dynamic()
    return _embedded(diffusers.FluxControlNetPipeline, scheduler, parts, components, encoders=2)


# ---------------------------------------------------------------- from words


def chroma(scheduler: Any = None, **components: Any) -> Any:
    """ChromaPipeline, which asks twice under guidance."""
    settings: dict[str, Any] = {
        **HEADS,
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 6, 6),
        "approximator_num_channels": 16,
        "approximator_hidden_dim": 16,
        "approximator_layers": 1,
    }
    parts: dict[str, Any] = {
        "vae": tiny_flow.vae(),
        "transformer": _liven(ChromaTransformer2DModel, 0, settings, proj_out=0.3),
    }
    return _embedded(diffusers.ChromaPipeline, scheduler or tiny_flow.flow(), parts, components)


def pixart(scheduler: Any = None, **components: Any) -> Any:
    """PixArtSigmaPipeline; it comes with DPM-Solver of order 2, which keeps a history."""
    settings: dict[str, Any] = {
        **HEADS,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 1,
        "cross_attention_dim": 32,
        "caption_channels": WIDTH,
        "sample_size": 16,
        "use_additional_conditions": False,
    }
    transformer = _liven(PixArtTransformer2DModel, 0, settings, proj_out=0.7)
    parts: dict[str, Any] = {"vae": tiny.vae(scaling_factor=4.0), "transformer": transformer}
    return _embedded(diffusers.PixArtSigmaPipeline, scheduler or tiny.ddim(), parts, components)


def hunyuan(scheduler: Any = None, **components: Any) -> Any:
    """HunyuanDiTPipeline, of two text encoders; it takes an auto-encoder of factor 8 for granted."""
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "hidden_size": 32,
        "in_channels": 4,
        "patch_size": 2,
        "num_layers": 2,
        "cross_attention_dim": WIDTH,
        "cross_attention_dim_t5": WIDTH,
        "pooled_projection_dim": WIDTH,
        "text_len": TOKENS,
        "text_len_t5": TOKENS,
        "sample_size": 8,
    }
    parts: dict[str, Any] = {
        "vae": tiny.vae(scaling_factor=4.0, **FACTOR_8),
        "transformer": _liven(HunyuanDiT2DModel, 0, settings, proj_out=0.7),
        **UNSAFE,
    }
    return _embedded(diffusers.HunyuanDiTPipeline, scheduler or tiny.ddim(), parts, components, encoders=2)


def aura_flow(scheduler: Any = None, **components: Any) -> Any:
    """AuraFlowPipeline."""
    settings: dict[str, Any] = {
        **HEADS,
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "num_mmdit_layers": 1,
        "num_single_dit_layers": 1,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 32,
        "pos_embed_max_size": 256,
    }
    parts: dict[str, Any] = {
        "vae": tiny.vae(),
        "transformer": _liven(AuraFlowTransformer2DModel, 0, settings, proj_out=0.5),
    }
    return _embedded(diffusers.AuraFlowPipeline, scheduler or tiny_flow.flow(), parts, components)


def lumina2(scheduler: Any = None, **components: Any) -> Any:
    """Lumina2Pipeline, which asks twice under guidance; it takes an auto-encoder of factor 8 for granted."""
    settings: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "hidden_size": 32,
        "num_layers": 1,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 2,
        "multiple_of": 16,
        "axes_dim_rope": (4, 6, 6),
        "axes_lens": (64, 64, 64),
        "cap_feat_dim": WIDTH,
    }
    parts: dict[str, Any] = {
        "vae": tiny_flow.vae(**FACTOR_8),
        "transformer": _liven(Lumina2Transformer2DModel, 0, settings, norm_out=0.3),
    }
    return _embedded(diffusers.Lumina2Pipeline, scheduler or tiny_flow.flow(), parts, components)
