"""Kinds of pipelines: how each is called, and how its loop lays latents out.  One row a kind; no other file lists them.

Guidance 1.0 means "none" in this package for every kind; a row translates that into the pipeline's own convention.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["EMBEDDINGS", "FAMILIES", "Family", "Loop", "call_keywords", "denoiser", "family", "few_step", "target_size"]

EMBEDDINGS = frozenset(
    prefix + name
    for prefix in ("", "negative_")
    for name in ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask", "prompt_embeds_mask")
)
"""Keywords that carry prompts in place of texts; a direct driver reads these and no others."""


@dataclass(frozen=True)
class Loop:
    """How the loop of a transformer pipeline asks its network, for a driver that asks in the same way.

    Attributes:
        latents, timestep: the network's names for them.
        time: what the network is handed for timesteps [rows], given the network and these.
        lay: the network's form of latents [rows, ...].
        take: predictions [rows, ...] from what the network returns.
        guide: the guided prediction from the two answers, in the order in which the loop gets them, and the scale.
        twice: whether the two answers are two calls, and not the halves of one doubled batch.
        shared: the network's arguments that are the same for all pictures and have no row for each.
    """

    latents: str = "hidden_states"
    timestep: str = "timestep"
    time: Callable[[Any, Any], Any] = field(default=lambda network, t: t)
    lay: Callable[[Any], Any] = field(default=lambda z: z)
    take: Callable[[Any], Any] = field(default=lambda answer: answer)
    guide: Callable[[Any, Any, float], Any] = field(default=lambda u, c, scale: u + scale * (c - u))
    twice: bool = False
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """What is special about one kind of pipeline.

    Attributes:
        pipelines: names of diffusers' classes; subclasses count too.
        guidance: keywords of the pipeline's call for a pipeline and a guidance scale of 1 (none) or more.
        direct: the direct driver that knows it: "unet" is `drivers.DirectDenoiser`, a loop is for
            `rehearsal.RehearsedDenoiser`, None leaves it to the pipeline's own loop.
        packed: whether the loop carries token sequences [batch, tokens, 4 channels], one token for 2 x 2 latents, in
            place of maps [batch, channels, height, width].
        statistics: where the auto-encoder's mean and standard deviation stand: "scale" is its scaling_factor alone,
            "shift" has a shift_factor beside it, "config" has latents_mean and latents_std, if set, "batch norm" its
            running statistics, of 2 x 2 latents.
        frames: whether the auto-encoder is one of videos, for which a picture is one frame.
        patch: side, in latents, of what the network takes as one token; 0 for UNets, which take any.
        few_step: whether a pipeline was distilled to few steps, where it says so of itself.
        keywords: further keywords that its call needs here.
    """

    pipelines: tuple[str, ...]
    guidance: Callable[[Any, float], dict[str, Any]] = field(default=lambda pipe, scale: {"guidance_scale": scale})
    direct: Literal["unet"] | Loop | None = None
    packed: bool = False
    statistics: Literal["scale", "shift", "config", "batch norm"] = "scale"
    frames: bool = False
    patch: int = 2
    few_step: Callable[[Any], bool] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)


def _z_image_guidance(pipe: Any, scale: float) -> dict[str, Any]:
    """Z-Image computes c + g (c - u), and truncates by the number of the step, which would count passes here."""
    return {"guidance_scale": scale - 1, "cfg_truncation": None}


def _qwen_guidance(pipe: Any, scale: float) -> dict[str, Any]:
    """Classifier-free, or as an embedding where the network was distilled for one."""
    embedded = pipe.transformer.config.guidance_embeds
    return {"true_cfg_scale": 1.0, "guidance_scale": scale} if embedded else {"true_cfg_scale": scale}


def _stacked(maps: Sequence[Any]) -> Any:
    """Z-Image takes and returns a list of videos of one frame, and predicts the velocity towards the picture."""
    import torch

    return -torch.stack(list(maps)).squeeze(2)


def _rescaled(c: Any, u: Any, scale: float) -> Any:
    """Qwen-Image gives the guided prediction of every token the length of the prompted one."""
    m = u + scale * (c - u)
    return m * (c.norm(dim=-1, keepdim=True) / m.norm(dim=-1, keepdim=True))


def _thousandth(network: Any, t: Any) -> Any:
    return t / 1000


FAMILIES: dict[str, Family] = {
    "sd": Family(("StableDiffusionPipeline",), direct="unet", patch=0),
    "lcm": Family(("LatentConsistencyModelPipeline",), direct="unet", patch=0),
    "sdxl": Family(("StableDiffusionXLPipeline",), direct="unet", statistics="config", patch=0),
    "sd-controlnet": Family(("StableDiffusionControlNetPipeline",), patch=0),
    "sdxl-controlnet": Family(("StableDiffusionXLControlNetPipeline",), statistics="config", patch=0),
    "sd3": Family(("StableDiffusion3Pipeline",), direct=Loop(), statistics="shift"),
    "flux": Family(
        ("FluxPipeline",),
        direct=Loop(time=_thousandth, shared=("img_ids", "txt_ids")),
        packed=True,
        statistics="shift",
        few_step=lambda pipe: not pipe.transformer.config.guidance_embeds,
    ),
    "flux2": Family(
        ("Flux2KleinPipeline",),
        direct=Loop(time=_thousandth, guide=lambda c, u, scale: u + scale * (c - u), twice=True),
        packed=True,
        statistics="batch norm",
        few_step=lambda pipe: bool(pipe.config.is_distilled),
    ),
    "z-image": Family(
        ("ZImagePipeline",),
        guidance=_z_image_guidance,
        direct=Loop(
            latents="x",
            timestep="t",
            time=lambda network, t: (1000 - t) / 1000,
            lay=lambda z: list(z.unsqueeze(2).unbind()),
            take=_stacked,
            guide=lambda c, u, scale: c + (scale - 1) * (c - u),
        ),
        statistics="shift",
    ),
    "qwen-image": Family(
        ("QwenImagePipeline",),
        guidance=_qwen_guidance,
        direct=Loop(time=_thousandth, guide=_rescaled, twice=True),
        packed=True,
        statistics="config",
        frames=True,
    ),
    "sana": Family(
        ("SanaPipeline",),
        direct=Loop(time=lambda network, t: t * network.config.timestep_scale),
        patch=1,
        keywords={"use_resolution_binning": False},
    ),
}

# What api decides itself; handed over in pipe_kwargs they would contradict it.
_DECIDED = {
    "prompt": "pass it as prompt=",
    "negative_prompt": "pass it as negative_prompt=",
    "height": "pass size=(height, width)",
    "width": "pass size=(height, width)",
    "num_inference_steps": "pass it as num_inference_steps=",
    "guidance_scale": "pass it as guidance_scale= or inversion_guidance_scale=",
    "num_images_per_prompt": "pass the picture as many times as wanted",
    "generator": "pass it as generator=",
    "latents": "the inversion makes them",
    "output_type": "pictures and latents come back as attributes and by methods",
    "return_dict": "the result is no pipeline output",
    "denoising_end": "pass strength= for a part of the schedule",
    "strength": "pass it to invert, as strength=; an edit starts where its inversion ended",
}


def family(pipe: Any) -> str:
    """The key of a pipeline's row in `FAMILIES`.

    Raises:
        TypeError: a pipeline of no known kind; names the class and what works.
    """
    import diffusers

    for name, rules in FAMILIES.items():
        if any(isinstance(pipe, getattr(diffusers, kind, ())) for kind in rules.pipelines):
            return name
    known = ", ".join(kind for rules in FAMILIES.values() for kind in rules.pipelines)
    raise TypeError(
        f"{type(pipe).__name__} is not supported; {known} are. A pipeline for another task on the same "
        "networks becomes one of them by StableDiffusionPipeline.from_pipe(pipe, dtype=pipe.dtype)"
    )


def denoiser(pipe: Any) -> Any:
    """The network that predicts: a pipeline's UNet or transformer."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def few_step(pipe: Any) -> bool:
    """Whether a flow-matching pipeline says of itself that it was distilled to few steps: FLUX.1 schnell, FLUX.2 klein.

    Others do not say it (SD3.5 Turbo, Z-Image Turbo): pass num_inference_steps and a preset.
    """
    told = FAMILIES[family(pipe)].few_step
    return told is not None and told(pipe)


def target_size(pipe: Any, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) in pixels that the pipeline can work at: the one given, or the model's own.

    Raises:
        ValueError: not one or two positive whole numbers, or no multiple of what the networks need.
    """
    factor: int = pipe.vae_scale_factor
    config = denoiser(pipe).config
    if size is None:
        side = getattr(pipe, "default_sample_size", None) or getattr(config, "sample_size", None) or 128
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        return height * factor, width * factor
    step = math.lcm(8, factor * max(1, FAMILIES[family(pipe)].patch))  # every pipeline of diffusers asks for 8
    sides = size if isinstance(size, (list, tuple)) else (size, size)
    whole = all(isinstance(side, int) and side > 0 and side % step == 0 for side in sides)
    if len(sides) != 2 or not whole:
        raise ValueError(
            f"size={size!r} does not fit this model: pass one number or (height, width), multiples of {step}, "
            f"e.g. {(8 * step, 8 * step)}"
        )
    return sides[0], sides[1]


def call_keywords(
    pipe: Any,
    prompts: Sequence[str] | None,
    negative_prompts: Sequence[str] | None,
    guidance_scale: float,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The part of a call of the pipeline that says what to show; a negative prompt counts under guidance only.

    Args:
        prompts: one per picture, or None where `extra` holds embeddings.
        negative_prompts: one per picture, or None for the pipeline's default.
        guidance_scale: 1 for none, or more.
        extra: any further keywords of the pipeline's own call (embeddings, adapter images, control images ...).

    Raises:
        TypeError: a keyword that the pipeline does not take.
        ValueError: one that is decided elsewhere, a missing prompt, or a negative prompt for a pipeline that takes
        none.
    """
    name, kind = family(pipe), type(pipe).__name__
    accepted = inspect.signature(pipe.__call__).parameters
    for keyword in extra:
        if keyword in _DECIDED:
            raise ValueError(f"{keyword} in pipe_kwargs: {_DECIDED[keyword]}")
        if keyword not in accepted:
            raise TypeError(f"{kind} takes no {keyword!r}, handed over in pipe_kwargs; it takes {', '.join(accepted)}")
    if prompts is None and extra.get("prompt_embeds") is None:
        raise ValueError("no prompt: pass prompt=, or its embeddings by pipe_kwargs={'prompt_embeds': ...}")
    if prompts is not None and extra.get("prompt_embeds") is not None:
        raise ValueError(f"a prompt, {prompts[0]!r}, and prompt_embeds in pipe_kwargs: pass one of them")
    keywords: dict[str, Any] = {**FAMILIES[name].guidance(pipe, guidance_scale), **FAMILIES[name].keywords}
    if prompts is not None:
        keywords["prompt"] = list(prompts)
    keywords |= extra
    guided = guidance_scale > 1
    if "true_cfg_scale" in accepted:  # guidance_scale is an embedding, beside which there may be guidance proper
        guided = keywords.get("true_cfg_scale", 1.0) > 1
    if negative_prompts is not None and (guided or guidance_scale > 1):
        text = negative_prompts[0]
        if not guided or "negative_prompt" not in accepted:
            remedy = ", or pass pipe_kwargs={'true_cfg_scale': 2.0}" if "true_cfg_scale" in accepted else ""
            raise ValueError(f"{kind} takes no negative prompt here: leave out {text!r}{remedy}")
        if "negative_prompt_embeds" in extra:
            raise ValueError(f"a negative prompt, {text!r}, and negative_prompt_embeds: pass one of them")
        keywords["negative_prompt"] = list(negative_prompts)
    elif "negative_prompt_embeds" in extra and "negative_prompt" in accepted:
        keywords["negative_prompt"] = None  # some pipelines have a text as their default, and refuse both
    elif name == "qwen-image" and guided:  # without one it would switch guidance off
        keywords["negative_prompt"] = [" "] * len(extra["prompt_embeds"] if prompts is None else prompts)
    return keywords
