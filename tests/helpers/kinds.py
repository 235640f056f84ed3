"""Tiny pipelines of every kind, two pictures for them, and a spy on what stock pipelines compute."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import renoise
from renoise.core.settings import Region, Settings
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import EMBEDDINGS, FAMILIES, family
from renoise.record import Scene
from tests.helpers import tiny, tiny_flow, tiny_transformers, tiny_unets

FLOW: dict[str, Callable[..., Any]] = {
    name: getattr(tiny_flow, name) for name in ("sd3", "flux", "flux2", "z_image", "qwen", "sana")
}
UNETS: dict[str, Callable[..., Any]] = {"sd": tiny.sd, "sdxl": tiny.sdxl, "lcm": tiny.lcm}
KINDS = UNETS | FLOW
"""The kinds that every test of families runs on."""

STARTS: dict[str, Callable[..., Any]] = {
    "sd img2img": partial(tiny_unets.sd, "StableDiffusionImg2ImgPipeline"),
    "sdxl img2img": partial(tiny_unets.sdxl, "StableDiffusionXLImg2ImgPipeline"),
    "sd inpaint": partial(tiny_unets.sd, "StableDiffusionInpaintPipeline"),
    "sdxl inpaint": partial(tiny_unets.sdxl, "StableDiffusionXLInpaintPipeline"),
    "sd inpaint, network that sees the mask": tiny_unets.sd_inpainting,
}
GUIDED: dict[str, Callable[..., Any]] = {
    "sd pag": partial(tiny_unets.sd, "StableDiffusionPAGPipeline"),
    "sdxl pag": partial(tiny_unets.sdxl, "StableDiffusionXLPAGPipeline"),
    "sd controlnet": lambda *scheduler: tiny_flow.controlnet(*scheduler, vae=tiny_unets.vae()),
    "sdxl controlnet": tiny_unets.sdxl_controlnet,
    "sdxl controlnet union": tiny_unets.sdxl_controlnet_union,
    "sd adapter": tiny_unets.sd_adapter,
    "sdxl adapter": tiny_unets.sdxl_adapter,
    "flux controlnet": tiny_transformers.flux_controlnet,
}
EDITING: dict[str, Callable[..., Any]] = {
    "flux kontext": tiny_transformers.kontext,
    "flux2 dev": tiny_transformers.flux2_dev,
    "qwen edit": tiny_transformers.qwen_edit,
    "qwen edit plus": tiny_transformers.qwen_edit_plus,
}
WORDS: dict[str, Callable[..., Any]] = {
    name: getattr(tiny_transformers, name) for name in ("chroma", "pixart", "hunyuan", "aura_flow", "lumina2")
}
LATER = STARTS | GUIDED | EDITING | WORDS
"""The others: `tests/pipelines/test_kinds.py` runs on them, and the support page."""


def settings(steps: int = 4, iterations: int = 2, guidance: float = 1.0) -> Settings:
    return Settings(
        (Region(iterations=iterations),),
        num_inference_steps=steps,
        guidance_scale=guidance,
        inversion_guidance_scale=guidance,
    )


def embeddings(pipe: Any, guidance: float = 1.0) -> dict[str, Any]:
    """Of a prompt for each picture, with negative ones under guidance."""
    keywords = tiny_flow.embeds(pipe, count_of(pipe), negative=guidance > 1)
    taken = EMBEDDINGS & inspect.signature(pipe.__call__).parameters.keys()
    return {key: value for key, value in keywords.items() if key in taken}


def count_of(pipe: Any) -> int:
    """How many pictures a test shows: two, where the pipeline can."""
    return 1 if FAMILIES[family(pipe)].one_picture else 2


def scene(pipe: Any, guidance: float) -> dict[str, Any]:
    """A prompt for each picture: as texts, or where the tiny pipeline has no text encoder as embeddings."""
    seen = conditions(pipe)
    if hasattr(pipe, "unet"):
        return {"prompt": ["a cat", "dogs in the rain"], "pipe_kwargs": seen}
    return {"prompt": None, "pipe_kwargs": embeddings(pipe, guidance) | seen}


def conditions(pipe: Any, seed: int = 0) -> dict[str, Any]:
    """What else a call needs, or what makes an editing model one: control and condition pictures."""
    kind, size = family(pipe), size_of(pipe)
    draw = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, 3, *(max(side, 64) if kind == "flux2-dev" else side for side in size), generator=draw)
    if kind == "sdxl-controlnet-union":
        return {"control_image": [rows, 1 - rows], "control_mode": [0, 1]}
    if kind == "sd-inpaint" and pipe.unet.config.in_channels == 9:
        return {"image": rows, "mask_image": (torch.rand(2, 1, *size, generator=draw) > 0.5).float()}
    if kind == "flux-kontext":
        return {"image": rows, "_auto_resize": False}
    if FAMILIES[kind].task == "editing" and kind in ("flux2-dev", "qwen-image-edit", "qwen-image-edit-plus"):
        shown = [Image.fromarray((255 * row).byte().permute(1, 2, 0).numpy()) for row in rows]
        return {"image": shown}
    return dict.fromkeys(FAMILIES[kind].needs, rows)


def another(scene: Scene) -> Scene:
    """The prompts the other way round."""
    swapped = {
        key: value.flip(0) if isinstance(value, Tensor) else value[::-1] if isinstance(value, list) else value
        for key, value in scene.pipe_kwargs.items()
    }
    return replace(scene, prompts=scene.prompts and scene.prompts[::-1], pipe_kwargs=swapped)


def size_of(pipe: Any) -> tuple[int, int]:
    """Not square, and the smallest that every network takes."""
    patch = pipe.vae_scale_factor * max(2, FAMILIES[family(pipe)].patch)
    return 4 * patch, 6 * patch


def pictures(size: tuple[int, int]) -> list[Image.Image]:
    """Two smooth ones."""
    height, width = size
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.stack([np.sin(3 * x + k), np.cos(4 * y - k), x * y], -1) for k in (0, 2)]
    return [Image.fromarray((127 * np.clip(wave, -1, 1) + 128).astype(np.uint8)) for wave in waves]


def inverted(pipe: Any, wanted: Settings, **arguments: Any) -> renoise.Inversion:
    given = {**scene(pipe, wanted.guidance_scale), **arguments}
    shown = pictures(size_of(pipe))[: count_of(pipe)]
    return renoise.invert(pipe, shown, preset=wanted, size=size_of(pipe), **given)


def call_keywords(
    pipe: Any, prompts: tuple[str, ...] | None, guidance: float, extra: Mapping[str, Any], size: tuple[int, int]
) -> dict[str, Any]:
    """Of a call that shows two pictures in three steps."""
    adapter = Adapter(pipe)
    return dict(adapter.call(Scene(prompts, None, guidance, extra), 3, size).keywords)
