"""Tiny pipelines of the real classes with seeded random weights: no hub, no files, a fraction of a second each.

Pictures are any multiple of 8 pixels, 32 by default; latents have 4 channels and a quarter of the picture's sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TRAINING: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
TOKENS = 16  # a prompt's length
WIDTH = 16  # of a text encoder


def ddim(**changes: Any) -> DDIMScheduler:
    """DDIM as Stable Diffusion uses it."""
    return DDIMScheduler(**{**TRAINING, "clip_sample": False, "set_alpha_to_one": False, **changes})


def euler_ancestral(**changes: Any) -> EulerAncestralDiscreteScheduler:
    """Ancestral Euler as SDXL Turbo uses it."""
    return EulerAncestralDiscreteScheduler(**{**TRAINING, "timestep_spacing": "trailing", **changes})


def lcm_scheduler(**changes: Any) -> LCMScheduler:
    """The sampler of latent consistency models."""
    return LCMScheduler(**{**TRAINING, "clip_sample": False, **changes})


def tokenizer() -> CLIPTokenizer:
    """Spells every word out in letters, apart from two merged words."""
    letters = [chr(code) for code in range(33, 127)]
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def text_config(**changes: Any) -> CLIPTextConfig:
    ids = tokenizer()
    return CLIPTextConfig(
        vocab_size=len(ids),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=ids.bos_token_id,
        eos_token_id=ids.eos_token_id,
        pad_token_id=ids.pad_token_id,
        initializer_factor=4.0,  # prompts that random weights tell apart
        **changes,
    )


AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 32,
}


def vae(seed: int = 0, **changes: Any) -> AutoencoderKL:
    """Factor 4, 4 channels."""
    with seeded(seed):
        return AutoencoderKL(**{**AUTOENCODER, "scaling_factor": 0.5, **changes}).eval()


def unet(seed: int = 0, **changes: Any) -> UNet2DConditionModel:
    """Two levels, cross-attention on the lower one."""
    settings: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
    }
    with seeded(seed):
        return UNet2DConditionModel(**{**settings, **changes}).eval()


def sd(scheduler: Any = None, **networks: Any) -> StableDiffusionPipeline:
    """StableDiffusionPipeline, by default with DDIM; `networks` replaces components."""
    return quiet(StableDiffusionPipeline(**_parts(scheduler or ddim(), networks), **UNSAFE))


def lcm(scheduler: Any = None, **networks: Any) -> LatentConsistencyModelPipeline:
    """LatentConsistencyModelPipeline, whose network takes guidance as an embedding."""
    networks.setdefault("unet", unet(time_cond_proj_dim=8))
    return quiet(LatentConsistencyModelPipeline(**_parts(scheduler or lcm_scheduler(), networks), **UNSAFE))


def sdxl(scheduler: Any = None, **networks: Any) -> StableDiffusionXLPipeline:
    """StableDiffusionXLPipeline with both text encoders, by default with ancestral Euler as SDXL Turbo."""
    with seeded(2):
        networks.setdefault("text_encoder_2", CLIPTextModelWithProjection(text_config(projection_dim=WIDTH)).eval())
    networks.setdefault("tokenizer_2", tokenizer())
    networks.setdefault("unet", unet(**SDXL))
    parts = _parts(scheduler or euler_ancestral(), networks)
    return quiet(StableDiffusionXLPipeline(**parts, add_watermarker=False))


SDXL: dict[str, Any] = {
    "cross_attention_dim": 2 * WIDTH,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": WIDTH + 6 * 4,
}
"""What the UNet of SDXL has otherwise."""
UNSAFE: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _parts(scheduler: Any, networks: dict[str, Any]) -> dict[str, Any]:
    with seeded(1):
        text_encoder = CLIPTextModel(text_config()).eval()
    parts = {"text_encoder": text_encoder, "tokenizer": tokenizer(), "vae": vae(), "scheduler": scheduler, **networks}
    return parts if "unet" in parts else {**parts, "unet": unet()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the weights made inside, and leave the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


_Pipe = TypeVar("_Pipe")


def quiet(pipe: _Pipe) -> _Pipe:
    pipe.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
    return pipe
