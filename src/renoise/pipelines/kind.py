"""What is special about one kind of pipeline, as data: how it is called, how its loop asks its network, its latents.

The rows stand in `renoise.pipelines.kinds_unet` and `renoise.pipelines.kinds_transformer`.  Guidance 1.0 means "none"
in this package for every kind.  The row of a kind converts it to the pipeline's own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["DESCRIPTIONS", "EMBEDDINGS", "NEGATIVES", "TEXTS", "Family", "Loop", "Task", "denoiser", "uncompiled"]

EMBEDDINGS = frozenset(
    prefix + name
    for prefix in ("", "negative_")
    for name in (
        "prompt_embeds",
        "pooled_prompt_embeds",
        "prompt_attention_mask",
        "prompt_embeds_mask",
        "prompt_embeds_2",
        "prompt_attention_mask_2",
    )
)
"""Keywords of a pipeline's call that pass prompts as embeddings.  The direct driver accepts these and a kind's own
`conditions`, and no others."""

TEXTS = frozenset(prefix + name for prefix in ("", "negative_") for name in ("prompt_2", "prompt_3"))
"""Keywords that carry prompts for the second and third text encoder of a pipeline."""

NEGATIVES = frozenset(keyword for keyword in EMBEDDINGS | TEXTS if keyword.startswith("negative_"))
"""Those of both that carry negative prompts; a new negative prompt takes their place."""

DESCRIPTIONS = (EMBEDDINGS | TEXTS) - NEGATIVES
"""Those of both that say what the picture shows; a new prompt takes their place."""


Task = Literal["words", "editing", "control", "start"]
"""What a pipeline is for: to make pictures from words, to edit a picture that its network sees beside the latents, to
follow a control picture, or to start from a picture (the networks of a pipeline for words, with another start)."""


def _height_and_width(pipe: Any, count: int, size: tuple[int, int]) -> dict[str, Any]:
    return {"height": size[0], "width": size[1]}


@dataclass(frozen=True)
class Loop:
    """How the loop of a pipeline calls its network, for the direct driver, which calls it in the same way.

    Attributes:
        latents: the network's name for its latents.  What the network is handed there beyond the latents, along the
            second dimension (tokens of a condition picture, channels of a mask), stays as the loop hands it over.
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
        pipelines: names of its classes.  Subclasses count too.
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
        task: what its pipelines are for.
        sampler: whether its pipelines come with a sampler of diffusion models or of flow matching.
        grid: function from a pipeline, a number of pictures and their (height, width) in pixels to the keywords of its
            call that say how many pixels it makes.  Keywords of the user's own take their place.
        needs: keywords that its call cannot do without, so that they have to be in pipe_kwargs.
        conditions: keywords of what its network sees beside the latents, the same at every step.  The direct driver
            reads them too.
        together: keywords whose lists are about all pictures of a call, instead of holding a value for each.
        refused: function from a pipeline to keywords that would undo the inversion, each with what to do instead.
        one_picture: whether its call shows one picture at a time.
        exchanges_attention: whether its call puts attention processors of its own on the network, which an error or a
            stop would leave there.
        plain_schedule: whether its loop sets up the scheduler by the number of steps alone, not by the image size too.
        negative_needed: whether its loop switches guidance off if there is no negative prompt.
        width: the width of prompt embeddings that a network's configuration asks for; None where it does not say.
        pooled: likewise the width of the pooled embeddings that its call needs beside prompt embeddings; None for kinds
            that take none.
        second: likewise the width of embeddings by a second text encoder (prompt_embeds_2).
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
    task: Task = "words"
    sampler: Literal["diffusion", "flow"] = "flow"
    grid: Callable[[Any, int, tuple[int, int]], dict[str, Any]] = _height_and_width
    needs: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    refused: Callable[[Any], Mapping[str, str]] = field(default=lambda pipe: {})
    one_picture: bool = False
    exchanges_attention: bool = False
    plain_schedule: bool = False
    negative_needed: bool = False
    width: Callable[[Any], int | None] = field(default=lambda config: config.joint_attention_dim)
    pooled: Callable[[Any], int | None] | None = None
    second: Callable[[Any], int | None] | None = None
    masked: bool = False
    unequal: bool = False
    ignores_guidance: Callable[[Any], bool] = field(default=lambda pipe: False)


def uncompiled(network: Any) -> Any:
    """The network itself where it was compiled by torch, for its configuration, its class and its signature."""
    return getattr(network, "_orig_mod", network)


def denoiser(pipe: Any) -> Any:
    """The network that makes the predictions: the pipeline's UNet or transformer."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer
