"""The kinds of pipelines: how each is called, and the layout of its latents.  One row per kind, listed nowhere else.

Guidance 1.0 means "none" in this package for every kind.  The row of a kind converts it to the pipeline's own scale.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "DESCRIPTIONS",
    "EMBEDDINGS",
    "FAMILIES",
    "NEGATIVES",
    "TEXTS",
    "Family",
    "Loop",
    "denoiser",
    "family",
    "uncompiled",
]

EMBEDDINGS = frozenset(
    prefix + name
    for prefix in ("", "negative_")
    for name in ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask", "prompt_embeds_mask")
)
"""Keywords of a pipeline's call that pass prompts as embeddings.  The direct driver accepts these and no others."""

TEXTS = frozenset(prefix + name for prefix in ("", "negative_") for name in ("prompt_2", "prompt_3"))
"""Keywords that carry prompts for the second and third text encoder of a pipeline."""

NEGATIVES = frozenset(keyword for keyword in EMBEDDINGS | TEXTS if keyword.startswith("negative_"))
"""Those of both that carry negative prompts; a new negative prompt takes their place."""

DESCRIPTIONS = (EMBEDDINGS | TEXTS) - NEGATIVES
"""Those of both that say what the picture shows; a new prompt takes their place."""


@dataclass(frozen=True)
class Loop:
    """How the loop of a pipeline calls its network, for the direct driver, which calls it in the same way.

    Attributes:
        latents: the network's name for its latents.
        timestep: the network's name for its timesteps.
        time: function from the network and timesteps [rows] to the timesteps as the network takes them.
        to_network: function from latents [rows, ...] to latents as the network takes them.
        from_network: function from what the network returns to predictions [rows, ...].
        guide: function from the two predictions, in the order in which the loop gets them, and the guidance scale to
            the guided prediction.
        twice: whether the two predictions come from two calls instead of the halves of one doubled batch.
        shared: the network's arguments that are the same for all images and have no batch dimension.
    """

    latents: str = "hidden_states"
    timestep: str = "timestep"
    time: Callable[[Any, Any], Any] = field(default=lambda network, t: t)
    to_network: Callable[[Any], Any] = field(default=lambda z: z)
    from_network: Callable[[Any], Any] = field(default=lambda answer: answer)
    guide: Callable[[Any, Any, float], Any] = field(default=lambda u, c, scale: u + scale * (c - u))
    twice: bool = False
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """What is special about one kind of pipeline.

    Attributes:
        pipelines: names of its diffusers classes.  Subclasses count too.
        guidance: function from a pipeline and a guidance scale of 1 (none) or more to keywords of the pipeline's call.
        direct: how its loop calls its network, for the direct driver (`renoise.pipelines.direct`).  None if only the
            pipeline's own loop can be used.
        packed: whether the latents of the loop are token sequences [batch, tokens, 4 * channels], one token for 2 x 2
            latent pixels, instead of maps [batch, channels, height, width].
        statistics: where the mean and the standard deviation of the latents are found.  "scale": scaling_factor of the
            auto-encoder.  "shift": scaling_factor and shift_factor.  "config": latents_mean and latents_std if set.
            "batch norm": running statistics of a batch norm over 2 x 2 latent pixels.
        frames: whether the auto-encoder is one for videos, to which an image is a video of one frame.
        patch: side, in latent pixels, of one token of the network.  0 for UNets, which have no tokens.
        few_step: function that tells whether a pipeline was distilled to few steps.  None if pipelines of this kind do
            not say so.
        keywords: further keywords that its call needs.
        plain_schedule: whether its loop sets up the scheduler by the number of steps alone, not by the image size too.
        negative_needed: whether its loop switches guidance off if there is no negative prompt.
        width: the width of prompt embeddings that a network's configuration asks for; None where it does not say.
        pooled: likewise the width of the pooled embeddings that its call needs beside prompt embeddings; None for kinds
            that take none.
        masked: whether its call needs a mask beside prompt embeddings.
        unequal: whether negative embeddings may have another number of tokens than the others.
        ignores_guidance: whether a pipeline's network was distilled so that its guidance scale changes nothing.
    """

    pipelines: tuple[str, ...]
    guidance: Callable[[Any, float], dict[str, Any]] = field(default=lambda pipe, scale: {"guidance_scale": scale})
    direct: Loop | None = None
    packed: bool = False
    statistics: Literal["scale", "shift", "config", "batch norm"] = "scale"
    frames: bool = False
    patch: int = 2
    few_step: Callable[[Any], bool] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    plain_schedule: bool = False
    negative_needed: bool = False
    width: Callable[[Any], int | None] = field(default=lambda config: config.joint_attention_dim)
    pooled: Callable[[Any], int | None] | None = None
    masked: bool = False
    unequal: bool = False
    ignores_guidance: Callable[[Any], bool] = field(default=lambda pipe: False)


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


def _unet_width(config: Any) -> int | None:
    """Not told by a UNet that projects its embeddings first."""
    width = config.cross_attention_dim
    return width if isinstance(width, int) and config.encoder_hid_dim_type is None else None


def _sdxl_pooled(config: Any) -> int | None:
    """What is left beside six numbers of size and crop."""
    whole, numbers = config.projection_class_embeddings_input_dim, config.addition_time_embed_dim
    return None if whole is None or numbers is None else whole - 6 * numbers


def _thousandth(network: Any, t: Any) -> Any:
    return t / 1000


_UNET = Loop(latents="sample")
_SDXL: Any = {"statistics": "config", "patch": 0, "width": _unet_width, "pooled": _sdxl_pooled}

FAMILIES: dict[str, Family] = {
    "sd": Family(("StableDiffusionPipeline",), direct=_UNET, patch=0, plain_schedule=True, width=_unet_width),
    "lcm": Family(("LatentConsistencyModelPipeline",), direct=_UNET, patch=0, plain_schedule=True, width=_unet_width),
    "sdxl": Family(("StableDiffusionXLPipeline",), direct=_UNET, plain_schedule=True, **_SDXL),
    "sd-controlnet": Family(("StableDiffusionControlNetPipeline",), patch=0, width=_unet_width),
    "sdxl-controlnet": Family(("StableDiffusionXLControlNetPipeline",), **_SDXL),
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


def family(pipe: Any) -> str:
    """The key of a pipeline's row in `FAMILIES`.

    Raises:
        TypeError: the pipeline is of no known kind.  The message names its class and those that work.
    """
    import diffusers

    for name, rules in FAMILIES.items():
        if any(isinstance(pipe, getattr(diffusers, kind, ())) for kind in rules.pipelines):
            return name
    known = ", ".join(kind for rules in FAMILIES.values() for kind in rules.pipelines)
    fitting = _fitting(pipe)
    advice = f". Its networks without its task are made one by {fitting}.from_pipe(pipe, dtype=pipe.dtype)"
    raise TypeError(f"{type(pipe).__name__} is not supported; {known} are{advice if fitting else ''}")


def _fitting(pipe: Any) -> str | None:
    """The known class that can be made from a pipeline's components, if any: that which uses the most of them."""
    import diffusers

    if not isinstance(pipe, diffusers.DiffusionPipeline) or not _makes_pictures(pipe):
        return None
    best: tuple[int, int, str] | None = None
    for name in (name for rules in FAMILIES.values() for name in rules.pipelines):
        kind: Any = getattr(diffusers, name)
        types = kind._get_signature_types()
        networks = [key for key in kind._get_signature_keys(kind)[0] if key.startswith(_COMPONENTS)]
        fits = all(key in pipe.components and _is_one_of(pipe.components[key], types.get(key, ())) for key in networks)
        used = sum(pipe.components.get(key) is not None for key in networks)
        alike = sum(map(operator.eq, name, type(pipe).__name__))  # letters
        if fits and (best is None or (used, alike) > best[:2]):
            best = used, alike, name
    return best and best[2]


_COMPONENTS = ("unet", "transformer", "vae", "text_encoder", "controlnet")


def _is_one_of(component: Any, types: Sequence[Any]) -> bool:
    return component is None or isinstance(component, tuple(kind for kind in types if isinstance(kind, type)))


def _makes_pictures(pipe: Any) -> bool:
    """Whether a pipeline's network takes latents alone, and not a mask or another picture beside them."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    config: Any = getattr(network, "config", {})
    taken = config.get("in_channels")
    # an auto-encoder of depth maps beside pictures takes six channels
    colours = getattr(getattr(pipe, "vae", None), "config", {}).get("in_channels", 3)
    returned = config.get("out_channels") or taken
    return colours == 3 and taken is not None and taken in (returned, 4 * returned)  # tokens of 2 x 2 latents


def uncompiled(network: Any) -> Any:
    """The network itself where it was compiled by torch, for its configuration, its class and its signature."""
    return getattr(network, "_orig_mod", network)


def denoiser(pipe: Any) -> Any:
    """The network that makes the predictions: the pipeline's UNet or transformer."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer
