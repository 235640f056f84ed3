"""The direct driver of transformer pipelines: the pipeline's own call up to its network, and then the network alone.

A rehearsal is one call of the pipeline that is stopped where its loop asks the network.  By then the pipeline has
encoded the prompts, set its scheduler up for the size of the picture, and made everything that it hands to the network.
Of all that only latents and time change from one evaluation to the next.  A `families.Loop` says how, and how two
answers become a guided one; nothing else of a pipeline is known here.

A pipeline that asks its network twice for a guided prediction has to be given the first answer before it asks again, so
its rehearsal takes that one evaluation.  Any other takes none.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renoise.core.loop import Query, spread
from renoise.core.table import StepTable
from renoise.pipelines.families import Loop
from renoise.pipelines.stand_in import check_free, no_bar, placed

__all__ = ["Rehearsal", "RehearsedDenoiser", "rehearse"]


class _Heard(Exception):  # noqa: N818 - it ends a rehearsal, and is no error
    """Everything is known that a rehearsal is for."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What a pipeline had prepared when its loop was about to begin.

    Attributes:
        network: its transformer.
        scheduler: a copy of its scheduler, set up by the pipeline.
        cues: the arguments of the network's calls for one prediction, by name; one, or two under guidance.
        batch: how many prompts it was called with.
    """

    network: Any
    scheduler: Any
    cues: tuple[Mapping[str, Any], ...]
    batch: int

    def measure(self) -> StepTable:
        """The steps of the schedule; raises NotInvertible, see `StepTable.measure`."""
        return StepTable.measure(self.scheduler)


def rehearse(pipe: Any, keywords: Mapping[str, Any], loop: Loop, *, guided: bool) -> Rehearsal:
    """Calls a pipeline up to its network; pipeline and scheduler are left as they were.

    Args:
        pipe: a diffusers pipeline with a transformer.
        keywords: of its call.
        loop: how it asks.
        guided: whether guidance is on.

    Raises:
        RuntimeError: the pipeline is in the middle of an inversion, or never asked its network.
    """
    check_free(pipe.scheduler)
    network, scheduler = pipe.transformer, copy.deepcopy(pipe.scheduler)
    signature = inspect.signature(getattr(network, "_orig_mod", network).forward)  # of a compiled network too
    cues: list[Mapping[str, Any]] = []

    def listen(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        cues.append(signature.bind(*positional, **named).arguments)
        if len(cues) == 1 + (loop.twice and guided):
            raise _Heard

    @functools.wraps(scheduler.step)  # pipelines read its signature
    def step(*_: Any, **__: Any) -> None:
        raise _Heard  # the loop asked once only, as one that was distilled does under guidance

    scheduler.step = step
    hook = network.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        with placed(pipe, scheduler), no_bar(pipe):
            seed = torch.Generator(pipe._execution_device).manual_seed(0)
            pipe(**keywords, generator=seed, output_type="latent", return_dict=False)
    except _Heard:
        pass
    finally:
        hook.remove()
    if not cues:
        raise RuntimeError(f"{type(pipe).__name__} never asked its network: pass driver='pipeline'")
    del scheduler.step
    prompts = keywords.get("prompt") or keywords["prompt_embeds"]
    return Rehearsal(network, scheduler, tuple(cues), len(prompts))


class RehearsedDenoiser:
    """Answers a `Query` with the guided prediction of a transformer, asked as its pipeline asks it.

    Images that a query does not wait for are left out.
    """

    def __init__(self, rehearsal: Rehearsal, loop: Loop, guidance_scale: float, table: StepTable) -> None:
        """Takes what the rehearsal prepared.

        Args:
            loop: of the rehearsed pipeline's family.
            guidance_scale: that of the rehearsed call, 1 for none, or more.
            table: the sampler's steps; its timesteps are what the network is handed.
        """
        self._rehearsal, self._loop, self._guidance, self._table = rehearsal, loop, guidance_scale, table

    @torch.no_grad()
    def __call__(self, query: Query) -> Tensor:
        """The guided prediction for every row of `query.z`, one block of the whole batch after the other.

        Returns:
            float32, or float64 from a float64 network; shape and device of `query.z`.  Not a number for images that the
            query does not wait for.

        Raises:
            ValueError: the batch has not as many latents as there are prompts.
        """
        batch = self._rehearsal.batch
        if len(query.z) != query.copies * batch:
            raise ValueError(
                f"{len(query.z) // query.copies} pictures and {batch} prompts: pass one prompt per picture, or one row "
                "of prompt_embeds"
            )
        t = float(self._table.timesteps[query.step])
        cues = self._rehearsal.cues
        if query.waiting is None:
            return torch.cat([self._prediction(cues, z, t) for z in query.z.chunk(query.copies)])
        images = query.waiting.nonzero()[:, 0].tolist()
        part = [self._part(cue, images) for cue in cues]
        return spread(self._prediction(part, query.z[query.waiting], t), query.waiting)

    def _prediction(self, cues: Sequence[Mapping[str, Any]], z: Tensor, t: float) -> Tensor:
        answers = [part for cue in cues for part in self._answers(cue, z, t)]
        return self._loop.guide(answers[0], answers[1], self._guidance) if len(answers) == 2 else answers[0]

    def _answers(self, cue: Mapping[str, Any], z: Tensor, t: float) -> tuple[Tensor, ...]:
        """The network's predictions for latents [images, ...]: one, or two from a doubled batch."""
        loop, network = self._loop, self._rehearsal.network
        shown, time = cue[loop.latents], cue[loop.timestep]
        groups = len(shown) // len(z)
        rows = torch.cat([z] * groups).to(shown[0].device, shown[0].dtype)
        changed = {loop.latents: loop.lay(rows), loop.timestep: loop.time(network, torch.full_like(time, t))}
        m: Tensor = loop.take(network(**{**cue, **changed})[0])[:, : z.shape[1]]  # some predict their variance beside
        return m.to(z.device, torch.promote_types(m.dtype, torch.float32)).chunk(groups)

    def _part(self, cue: Mapping[str, Any], images: Sequence[int]) -> dict[str, Any]:
        """The cue for some images: whatever has a row per image, or two in a doubled batch, keeps theirs alone."""
        batch, rows = self._rehearsal.batch, len(cue[self._loop.latents])
        kept = [first + image for first in range(0, rows, batch) for image in images]
        part = dict(cue)
        for name, value in cue.items():
            if isinstance(value, (Tensor, list)) and name not in self._loop.shared and len(value) == rows:
                part[name] = value[kept] if isinstance(value, Tensor) else [value[row] for row in kept]
        return part
