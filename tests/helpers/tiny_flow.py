"""Tiny pipelines of the real flow-matching classes, and a ControlNet one, in the manner of `tiny`: no hub, no files.

Pictures are any multiple of 8 pixels (Sana: of 32), latents have 4 channels and a quarter (Sana: an eighth) of the
picture's sides.  Text encoders are absent where their tokenizers would have to be downloaded: `embeds` stands in.

Fresh weights would answer almost nothing and almost the same to every prompt.  `_liven` draws them anew, so that the
velocity is of order 1, tells prompts and times apart, and changes slowly enough with the latent to be inverted.
"""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch import nn
from transformers import CLIPTextModelWithProjection

from tests.helpers import tiny
from tests.helpers.tiny import UNSAFE, WIDTH, quiet, seeded

TOKENS = 16  # of a prompt's embedding
HEADS: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}
DYNAMIC: dict[str, Any] = {
    "use_dynamic_shifting": True,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "shift": 3.0,
}

FLUX: dict[str, Any] = {
    **HEADS,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 6, 6),
}
"""The network of FLUX.1 dev."""


# ---------------------------------------------------------------- schedulers


def flow(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """As SD3 and Z-Image Turbo use it: a static shift of 3."""
    return FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **changes})


def flow_dynamic(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """As FLUX.1 dev and FLUX.2 use it: a shift that depends on the picture's size."""
    return FlowMatchEulerDiscreteScheduler(**{**DYNAMIC, **changes})


def flow_schnell(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """As FLUX.1 schnell uses it: no shift."""
    return FlowMatchEulerDiscreteScheduler(**{**DYNAMIC, "shift": 1.0, "use_dynamic_shifting": False, **changes})


def flow_qwen(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """As Qwen-Image uses it: dynamic, stretched to end at sigma 0.02, which takes two steps at least."""
    qwen = {"max_image_seq_len": 8192, "max_shift": 0.9, "shift": 1.0, "shift_terminal": 0.02}
    return FlowMatchEulerDiscreteScheduler(**{**DYNAMIC, **qwen, **changes})


def dpm_flow(**changes: Any) -> DPMSolverMultistepScheduler:
    """As Sana uses it, but for the order: it comes with 2, which keeps a history."""
    sana = {"flow_shift": 3.0, "use_flow_sigmas": True, "prediction_type": "flow_prediction", "solver_order": 1}
    return DPMSolverMultistepScheduler(**{**sana, **changes})


# ---------------------------------------------------------------- pipelines


def sd3(scheduler: Any = None, **components: Any) -> StableDiffusion3Pipeline:
    """StableDiffusion3Pipeline with both CLIP text encoders and without T5, which it allows."""
    parts: dict[str, Any] = {
        "scheduler": scheduler or flow(),
        "vae": vae(),
        "transformer": sd3_transformer(),
        "text_encoder_3": None,
        "tokenizer_3": None,
    }
    for seed, suffix in enumerate(("", "_2")):
        with seeded(seed):
            text_encoder = CLIPTextModelWithProjection(tiny.text_config(projection_dim=WIDTH)).eval()
        parts |= {f"text_encoder{suffix}": text_encoder, f"tokenizer{suffix}": tiny.tokenizer()}
    return quiet(StableDiffusion3Pipeline(**{**parts, **components}))


def sd3_transformer(seed: int = 0, **changes: Any) -> SD3Transformer2DModel:
    settings: dict[str, Any] = {
        **HEADS,
        "sample_size": 16,
        "pos_embed_max_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "joint_attention_dim": 2 * WIDTH,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 2 * WIDTH,
    }
    return _liven(SD3Transformer2DModel, seed, {**settings, **changes}, proj_out=0.7)


def flux(scheduler: Any = None, **components: Any) -> FluxPipeline:
    """FluxPipeline as FLUX.1 dev: guidance is an input of the network; true_cfg_scale is guidance proper."""
    parts: dict[str, Any] = {"vae": vae(), "transformer": flux_transformer()}
    return _embedded(FluxPipeline, scheduler or flow_dynamic(), parts, components, encoders=2)


def flux_transformer(seed: int = 0, **changes: Any) -> FluxTransformer2DModel:
    """FLUX.1 schnell has `guidance_embeds=False`."""
    return _liven(FluxTransformer2DModel, seed, {**FLUX, **changes}, proj_out=0.5)


def flux2(scheduler: Any = None, **components: Any) -> Flux2KleinPipeline:
    """Flux2KleinPipeline of the undistilled kind, which takes guidance."""
    parts: dict[str, Any] = {"vae": flux2_vae(), "transformer": flux2_transformer(), "is_distilled": False}
    return _embedded(Flux2KleinPipeline, scheduler or flow_dynamic(), parts, components)


def flux2_transformer(seed: int = 0, **changes: Any) -> Flux2Transformer2DModel:
    settings: dict[str, Any] = {
        **HEADS,
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": WIDTH,
        "timestep_guidance_channels": 16,
        "guidance_embeds": False,
        "axes_dims_rope": (4, 4, 4, 4),
    }
    return _liven(Flux2Transformer2DModel, seed, {**settings, **changes}, add_v_proj=6.0, proj_out=0.6)


def z_image(scheduler: Any = None, **components: Any) -> ZImagePipeline:
    """ZImagePipeline, whose prompt embeddings are lists of [tokens, width], as many tokens as the prompt has."""
    parts: dict[str, Any] = {"vae": vae(), "transformer": z_image_transformer()}
    return _embedded(ZImagePipeline, scheduler or flow(), parts, components)


def z_image_transformer(seed: int = 0, **changes: Any) -> ZImageTransformer2DModel:
    settings: dict[str, Any] = {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": WIDTH,
        "axes_dims": [4, 6, 6],
        "axes_lens": [128, 32, 32],
    }
    return _liven(ZImageTransformer2DModel, seed, {**settings, **changes}, all_final_layer=0.4)


def qwen(scheduler: Any = None, **components: Any) -> QwenImagePipeline:
    """QwenImagePipeline; its scheduler takes two steps at least."""
    parts: dict[str, Any] = {"vae": qwen_vae(), "transformer": qwen_transformer()}
    return _embedded(QwenImagePipeline, scheduler or flow_qwen(), parts, components)


def qwen_transformer(seed: int = 0, **changes: Any) -> QwenImageTransformer2DModel:
    settings: dict[str, Any] = {
        **HEADS,
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 6, 6),
    }
    return _liven(QwenImageTransformer2DModel, seed, {**settings, **changes}, add_v_proj=6.0, proj_out=0.4)


def sana(scheduler: Any = None, **components: Any) -> SanaPipeline:
    """SanaPipeline; call it with `use_resolution_binning=False`, as `embeds` says, or it makes 512 pixels."""
    parts: dict[str, Any] = {"vae": sana_vae(), "transformer": sana_transformer()}
    return _embedded(SanaPipeline, scheduler or dpm_flow(), parts, components)


def sana_transformer(seed: int = 0, **changes: Any) -> SanaTransformer2DModel:
    settings: dict[str, Any] = {
        **HEADS,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": WIDTH,
        "sample_size": 16,
    }
    return _liven(SanaTransformer2DModel, seed, {**settings, **changes}, proj_out=0.6)


def controlnet(scheduler: Any = None, **components: Any) -> StableDiffusionControlNetPipeline:
    """StableDiffusionControlNetPipeline; its `image` is [batch, 3, height, width] in [0, 1]."""
    control = ControlNetModel.from_unet(tiny.unet(1), conditioning_embedding_out_channels=(8, 16, 16))
    zeros = [control.controlnet_cond_embedding.conv_out, control.controlnet_mid_block, *control.controlnet_down_blocks]
    with seeded(3):
        for layer in zeros:  # as a ControlNet begins its training
            nn.init.normal_(layer.weight)
    parts = tiny._parts(scheduler or tiny.ddim(), {"controlnet": control.eval(), **components})
    return quiet(StableDiffusionControlNetPipeline(**parts, **UNSAFE))


# ---------------------------------------------------------------- prompts


def embeds(pipe: Any, batch: int, negative: bool = False, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments of a pipeline's call that carry one seeded prompt embedding per row, different from each other.

    With `negative`, the negative ones are among them.  Rows differ in length where the pipeline has masks or lists.
    """
    draw = torch.Generator().manual_seed(seed)
    arguments: dict[str, Any] = {}
    for prefix in ("", "negative_")[: 1 + negative]:
        arguments |= {prefix + name: value for name, value in _embeds_of(pipe, batch, draw).items()}
    if isinstance(pipe, SanaPipeline):
        arguments |= {"use_resolution_binning": False} | ({"negative_prompt": None} if negative else {})
    return arguments


def _embeds_of(pipe: Any, batch: int, draw: torch.Generator) -> dict[str, Any]:
    width = 2 * WIDTH if isinstance(pipe, StableDiffusion3Pipeline) else WIDTH
    rows = torch.randn(batch, TOKENS, width, generator=draw)
    lengths = torch.tensor([TOKENS - row % 2 for row in range(batch)])
    if isinstance(pipe, ZImagePipeline):
        return {"prompt_embeds": [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]}
    mask = torch.arange(TOKENS) < lengths[:, None]
    mask = mask if isinstance(pipe, ChromaPipeline) else mask.long()  # as their text encoders make them
    given = {"prompt_embeds": rows, "prompt_embeds_mask": mask, "prompt_attention_mask": mask}
    taken = inspect.signature(pipe.__call__).parameters
    if "pooled_prompt_embeds" in taken:
        given["pooled_prompt_embeds"] = torch.randn(batch, width, generator=draw)
    if "prompt_embeds_2" in taken:
        second = torch.randn(batch, TOKENS, width, generator=draw)
        given |= {"prompt_embeds_2": second, "prompt_attention_mask_2": mask}
    return {name: value for name, value in given.items() if name in taken}


# ---------------------------------------------------------------- auto-encoders and weights


def vae(seed: int = 0, **changes: Any) -> Any:
    """As `tiny.vae`, with the shift that flow-matching families have."""
    return tiny.vae(seed, **{"shift_factor": 0.1, "use_quant_conv": False, "use_post_quant_conv": False, **changes})


def flux2_vae(seed: int = 0, **changes: Any) -> AutoencoderKLFlux2:
    """Factor 4, 4 channels, 16 when packed, with statistics that are not those of a fresh batch norm."""
    with seeded(seed):
        network = AutoencoderKLFlux2(**{**tiny.AUTOENCODER, **changes}).eval()
        network.bn.running_mean.uniform_(-0.5, 0.5)
        network.bn.running_var.uniform_(0.3, 3.0)
    return network


def qwen_vae(seed: int = 0, **changes: Any) -> AutoencoderKLQwenImage:
    """Factor 4, 4 channels; latents carry a frame."""
    settings: dict[str, Any] = {
        "base_dim": 8,
        "z_dim": 4,
        "dim_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True],
        "latents_mean": [-0.3, 0.2, 0.1, -0.1],
        "latents_std": [0.5, 0.8, 1.2, 0.7],
    }
    with seeded(seed):
        network = AutoencoderKLQwenImage(**{**settings, **changes}).eval()
        network.decoder.conv_out.weight.data *= 8  # or every picture is grey
    return network


def sana_vae(seed: int = 0, **changes: Any) -> AutoencoderDC:
    """Factor 8, 4 channels."""
    settings: dict[str, Any] = {"latent_channels": 4, "attention_head_dim": 8, "scaling_factor": 0.4}
    for side in ("encoder", "decoder"):
        settings |= {
            f"{side}_block_types": "ResBlock",
            f"{side}_block_out_channels": (8, 8, 16, 16),
            f"{side}_layers_per_block": (1, 1, 1, 1),
            f"{side}_qkv_multiscales": ((),) * 4,
        }
    with seeded(seed):
        return AutoencoderDC(**{**settings, **changes}).eval()


_Class = TypeVar("_Class")


def _embedded(
    kind: type[_Class], scheduler: Any, parts: dict[str, Any], components: dict[str, Any], encoders: int = 1
) -> _Class:
    """A pipeline whose text encoders are absent."""
    absent = {name + suffix: None for name in ("text_encoder", "tokenizer") for suffix in ("", "_2")[:encoders]}
    return quiet(kind(**{**absent, **parts, "scheduler": scheduler, **components}))


def _liven(kind: type[_Class], seed: int, settings: dict[str, Any], **gains: float) -> Any:
    """A network of such settings with every matrix and bias drawn anew; `gains` are for names that contain the key."""
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # some of the library's networks use what it wants to rename
        network: Any = kind(**settings)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                gain = math.prod(factor for key, factor in gains.items() if key in name)
                nn.init.normal_(parameter, std=gain / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
    return network.eval()
