"""Drivers answer the queries of an inversion, m(z, t, prompt), with a pipeline's networks.

`DirectDenoiser` calls the network of a UNet pipeline itself, the way the loop of the stock pipeline does: same
embeddings, same conditioning, same guidance, so that its answers are those that the pipeline would compute.
`rehearsal` does that for transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from renoise.core.loop import Query, spread
from renoise.core.table import StepTable
from renoise.pipelines.families import family

__all__ = ["DirectDenoiser"]


class DirectDenoiser:
    """Answers a `Query` with the guided prediction of a Stable Diffusion, SDXL or latent-consistency pipeline.

    Guided, a network sees [negative rows, prompted rows] as one batch and the answer is u + g (c - u).  A network that
    was distilled to take guidance as an embedding (`time_cond_proj_dim`) gets it there, and its batch is not doubled.

    The pipeline is not changed; it encodes the prompts once, here.  `guidance_rescale`, IP-adapters and
    cross-attention arguments of the stock call are not taken.  Images that a query does not wait for are left out.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[str] | None,
        negative_prompts: Sequence[str] | None,
        guidance_scale: float,
        table: StepTable,
        embeddings: Mapping[str, Any] | None = None,
    ) -> None:
        """Encode the prompts.

        Args:
            prompts: one per latent of the batch, or None where `embeddings` holds prompt_embeds.
            negative_prompts: one per latent, or None for the pipeline's default (SDXL: zero embeddings, which the
                empty prompt "" is not). They count under guidance only.
            guidance_scale: g; 1 means no guidance whatever the family. From 0 to 1 means the same, as in diffusers.
            table: the sampler's steps; its timesteps and input scales are what the network is handed.
            embeddings: prompts that are encoded already, by the keywords of the pipeline's call.

        Raises:
            TypeError: an unsupported pipeline, or prompts that are not text.
            ValueError: no prompts, negative prompts of another number or for a network that cannot use them, or a
                guidance scale that is not a number from 0 up.
        """
        self._xl = family(pipe) == "sdxl"
        if not math.isfinite(guidance_scale) or guidance_scale < 0:
            raise ValueError(f"guidance_scale {guidance_scale!r} is not a number from 0 up; 1 means no guidance")
        embeddings = dict(embeddings or {})
        if embeddings.get("prompt_embeds") is None:
            prompts = _texts(prompts, "prompts")
        batch = len(embeddings["prompt_embeds"] if prompts is None else prompts)
        if negative_prompts is not None:
            negative_prompts = _texts(negative_prompts, "negative_prompts")
            if len(negative_prompts) != batch:
                raise ValueError(f"{len(negative_prompts)} negative_prompts for {batch} prompts: pass one each")
        self._embedded = getattr(pipe.unet.config, "time_cond_proj_dim", None)  # width of a guidance embedding
        if self._embedded is not None and any(negative_prompts or ()):
            raise ValueError(
                f"this {type(pipe).__name__} takes guidance as an embedding and knows no negative prompts: leave out "
                f"{next(filter(None, negative_prompts or ()))!r}"
            )
        self._pipe = pipe
        # both are looked up in all modules of the pipeline, which takes longer than some small network
        self._device, self._dtype = pipe._execution_device, pipe.unet.dtype
        self._table = table
        self._batch = batch
        self._guidance = max(1.0, float(guidance_scale))
        self._doubled = self._guidance > 1 and self._embedded is None
        self._timesteps = table.handed_over(pipe.scheduler)
        with torch.no_grad():
            encoded = pipe.encode_prompt(
                prompt=prompts,
                device=self._device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=self._doubled,
                negative_prompt=negative_prompts if self._doubled else None,
                **embeddings,
            )
        # groups of embeddings [1 or 2, batch, ...]: negative, prompted
        self._text = torch.stack([encoded[1], encoded[0]] if self._doubled else [encoded[0]])
        if self._xl:
            self._pooled = torch.stack([encoded[3], encoded[2]] if self._doubled else [encoded[2]])

    @torch.no_grad()
    def __call__(self, query: Query) -> Tensor:
        """The guided prediction for every row of `query.z`, blocks of the whole batch: row r has prompt r % batch.

        Returns:
            float32, or float64 from a float64 network; shape and device of `query.z`.  Not a number for images that the
            query does not wait for.

        Raises:
            ValueError: the batch has not as many latents as there are prompts.
        """
        if len(query.z) != query.copies * self._batch:
            raise ValueError(
                f"{len(query.z)} rows of latents are not {query.copies} x {self._batch} prompts: pass one prompt for "
                "each latent of the batch"
            )
        if query.waiting is None:
            return self._prediction(query.z, query, slice(None))
        return spread(self._prediction(query.z[query.waiting], query, query.waiting), query.waiting)

    def _prediction(self, z: Tensor, query: Query, images: Tensor | slice) -> Tensor:
        """The guided prediction for latents z, blocks of those images of the batch."""
        device = self._device
        scaled = (z * float(self._table.input_scale[query.step])).to(device, self._dtype)
        m: Tensor = self._pipe.unet(
            torch.cat([scaled] * len(self._text)),
            self._timesteps[query.step].to(device),
            encoder_hidden_states=_rows(self._text, query.copies, images).to(device, self._dtype),
            timestep_cond=self._guidance_embedding(len(z)),
            added_cond_kwargs=self._size_and_pooled(query, images) if self._xl else None,
            return_dict=False,
        )[0]
        m = m.to(z.device, torch.promote_types(m.dtype, torch.float32))
        if not self._doubled:
            return m
        unguided, prompted = m.chunk(2)
        return unguided + self._guidance * (prompted - unguided)

    def _guidance_embedding(self, rows: int) -> Tensor | None:
        if self._embedded is None:
            return None
        above = torch.tensor(self._guidance - 1).repeat(rows)
        embedding: Tensor = self._pipe.get_guidance_scale_embedding(above, embedding_dim=self._embedded)
        return embedding.to(self._device, self._dtype)

    def _size_and_pooled(self, query: Query, images: Tensor | slice) -> dict[str, Tensor]:
        """What SDXL knows beside the text: pooled embeddings, and the picture's size (full, uncropped)."""
        pipe = self._pipe
        size = tuple(side * pipe.vae_scale_factor for side in query.z.shape[-2:])
        encoder = pipe.text_encoder_2
        width = self._pooled.shape[-1] if encoder is None else encoder.config.projection_dim
        # the pipeline's dtype for these numbers is that of its embeddings, before any cast to the network's
        ids = pipe._get_add_time_ids(size, (0, 0), size, dtype=self._text.dtype, text_encoder_projection_dim=width)
        pooled = _rows(self._pooled, query.copies, images).to(self._device, self._dtype)
        return {"text_embeds": pooled, "time_ids": ids.to(self._device).repeat(len(pooled), 1)}


def _rows(groups: Tensor, copies: int, images: Tensor | slice) -> Tensor:
    """Embeddings [groups, batch, ...] as the rows of a batch: per group, `copies` blocks of those images."""
    chosen = groups[:, images.to(groups.device) if isinstance(images, Tensor) else images]
    return chosen.unsqueeze(1).expand(-1, copies, *chosen.shape[1:]).flatten(0, 2)


def _texts(value: Sequence[str] | None, name: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} {value!r} is not a list of texts: write [{value!r}]")
    for text in value:
        if not isinstance(text, str):
            raise TypeError(f"{name} holds {text!r}, a {type(text).__name__}: every prompt must be a str")
    if not value:
        raise ValueError(f"{name} is empty: pass one text for each latent of the batch")
    return list(value)
