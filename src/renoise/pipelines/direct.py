"""The direct driver: the pipeline's own call up to its network, and then the network alone.

A rehearsal is one call of the pipeline that is stopped where its loop asks the network.  By then the pipeline has
encoded the prompts, set its scheduler up for the size of the picture, and made everything that it hands to the network.
Of all that only latents and time change from one evaluation to the next.  A `kind.Loop` says how, and how two
answers become a guided one; nothing else of a pipeline is known here.

A pipeline that asks its network twice for a guided prediction has to be given the first answer before it asks again, so
its rehearsal takes that one evaluation.  Any other takes none.

Several scenes (`Query.scenes`) take a rehearsal each.  Where their arguments have the same form, blocks about several
scenes are answered by one call of the network; otherwise each scene takes a call of its own.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renoise.core.query import Query, spread
from renoise.core.table import StepTable
from renoise.pipelines.families import Loop, denoiser, uncompiled
from renoise.pipelines.keywords import Call, same
from renoise.pipelines.known_steps import check_scheduler, known_steps
from renoise.pipelines.measure import measure
from renoise.pipelines.stand_in import no_bar, placed

__all__ = ["DirectDenoiser", "Rehearsal", "rehearse"]


_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Heard(Exception):  # noqa: N818 - it ends a rehearsal, and is no error
    """Everything is known that a rehearsal is for."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """What a pipeline had prepared when its loop was about to begin.

    Attributes:
        network: its UNet or transformer.
        scheduler: a copy of its scheduler, set up by the pipeline.
        calls: the arguments of the network's calls for one prediction, by name; one call, or two under guidance.
        batch: how many prompts it was called with.
        guidance_scale: that of the call, 1 for none, or more.
    """

    network: Any
    scheduler: Any
    calls: tuple[Mapping[str, Any], ...]
    batch: int
    guidance_scale: float

    def measure(self) -> StepTable:
        """The steps of the schedule; raises NotInvertible, see `renoise.pipelines.measure`."""
        return measure(self.scheduler)


def rehearse(pipe: Any, call: Call, loop: Loop, steps: StepTable | None = None) -> Rehearsal:
    """Calls a pipeline up to its network; pipeline and scheduler are left as they were.

    Args:
        pipe: a diffusers pipeline.
        call: the call.
        loop: how its loop asks its network.
        steps: the table where it is known beforehand; the pipeline's scheduler is then not asked for its steps.

    Raises:
        RuntimeError: the pipeline is in the middle of an inversion, or never asked its network.
    """
    check_scheduler(pipe.scheduler)
    network = denoiser(pipe)
    scheduler = copy.deepcopy(pipe.scheduler) if steps is None else known_steps(pipe.scheduler, steps)
    signature = inspect.signature(uncompiled(network).forward)
    calls: list[Mapping[str, Any]] = []
    thread = threading.get_ident()

    def listen(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return  # another pipeline with the same network, in a thread of its own
        calls.append(signature.bind(*positional, **named).arguments)
        if len(calls) == 1 + (loop.twice and call.guidance_scale > 1):
            raise _Heard

    @functools.wraps(scheduler.step)  # pipelines read its signature
    def step(*_: Any, **__: Any) -> None:
        raise _Heard  # the loop asked once only, as one that was distilled does under guidance

    scheduler.step = step
    attributes = set(vars(pipe))
    hook = network.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        with placed(pipe, scheduler), no_bar(pipe):
            seed = torch.Generator().manual_seed(0)
            pipe(**call.keywords, generator=seed, output_type="latent", return_dict=False)
    except _Heard:
        pass
    finally:
        hook.remove()
        for added in vars(pipe).keys() - attributes:  # what the call notes for its own properties
            delattr(pipe, added)
    if not calls:
        raise RuntimeError(f"{type(pipe).__name__} never asked its network: pass driver='pipeline'")
    del scheduler.step
    heard = tuple(_in_precision_of(network, arguments, loop) for arguments in calls)
    return Rehearsal(network, scheduler, heard, call.batch, call.guidance_scale)


def _in_precision_of(network: Any, arguments: Mapping[str, Any], loop: Loop) -> Mapping[str, Any]:
    """Arguments in the network's precision, where text encoders run in another; their pipeline's loop fails there."""
    (sample, *_), wanted = arguments[loop.latents], network.dtype
    if sample.dtype == wanted or wanted not in _PRECISIONS or sample.dtype not in _PRECISIONS:
        return arguments

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(wanted)
        if isinstance(value, dict):
            return {name: cast(item) for name, item in value.items()}
        return [cast(item) for item in value] if isinstance(value, list) else value

    return {name: value if name == loop.timestep else cast(value) for name, value in arguments.items()}


class DirectDenoiser:
    """Answers a `Query` with the guided prediction of a network, asked as its pipeline asks it.

    Images that a query does not wait for are left out.
    """

    def __init__(self, rehearsals: Sequence[Rehearsal], loop: Loop, table: StepTable) -> None:
        """Takes what the rehearsals prepared.

        Args:
            rehearsals: one per scene, of the same pipeline and number of prompts.
            loop: of that pipeline's family.
            table: the sampler's steps; their timesteps and input scales are what the network is handed.
        """
        self._rehearsals, self._loop, self._table = rehearsals, loop, table
        self._batch = rehearsals[0].batch
        # most queries are about the same scenes and images as the one before
        self._arguments = functools.lru_cache(maxsize=2)(self._joined)

    def __call__(self, query: Query) -> Tensor:
        """The guided prediction for every row of `query.z`, one block of the whole batch after the other.

        Returns:
            float32, or float64 from a float64 network; shape and device of `query.z`.  Not a number for images that the
            query does not wait for.

        Raises:
            ValueError: the batch has not as many latents as there are prompts.
        """
        blocks = len(query.scenes)
        if len(query.z) != blocks * self._batch:
            raise ValueError(
                f"{len(query.z) / blocks:g} pictures and {self._batch} prompts: pass one prompt per picture, or one "
                "row of prompt_embeds"
            )
        if max(query.scenes) >= len(self._rehearsals):
            raise ValueError(
                f"a query about scene {max(query.scenes)}, and {len(self._rehearsals)} is shown: pass one call a scene"
            )
        if query.waiting is None:
            return self._prediction(query.z, query.step, query.scenes, tuple(range(self._batch)))
        images = tuple(query.waiting.nonzero()[:, 0].tolist())
        return spread(self._prediction(query.z[query.waiting], query.step, query.scenes, images), query.waiting)

    def _prediction(self, z: Tensor, step: int, scenes: tuple[int, ...], images: tuple[int, ...]) -> Tensor:
        """For blocks of those images."""
        calls = self._arguments(scenes, images)
        if calls is None:
            parts = zip(z.chunk(len(scenes)), scenes, strict=True)
            return torch.cat([self._prediction(part, step, (scene,), images) for part, scene in parts])
        answers = [answer for call in calls for answer in self._answers(call, z, step)]
        if len(answers) == 1:
            return answers[0]
        halves = (answer.chunk(len(scenes)) for answer in answers)
        scales = (self._rehearsals[scene].guidance_scale for scene in scenes)
        return torch.cat([self._loop.guide(*part) for part in zip(*halves, scales, strict=True)])

    def _answers(self, call: Mapping[str, Any], z: Tensor, step: int) -> tuple[Tensor, ...]:
        """The network's predictions for latents [rows, ...]: one, or two from a doubled batch."""
        loop, network, table = self._loop, self._rehearsals[0].network, self._table
        shown, time = call[loop.latents], call[loop.timestep]
        groups = len(shown) // len(z)
        scaled = z * float(table.input_scale[step])
        rows = torch.cat([scaled] * groups).to(shown[0].device, shown[0].dtype)
        # a scheduler with whole timesteps may have taken the place of the one that was measured
        dtype = time.dtype if time.is_floating_point() or table.integer_timesteps else torch.float32
        t = torch.full(time.shape and (len(rows),), float(table.timesteps[step]), dtype=dtype, device=time.device)
        asked = loop.to_network(rows)
        if isinstance(shown, Tensor) and shown.shape[1] > rows.shape[1]:  # a condition picture, or a mask, follows
            asked = torch.cat([asked, shown[:, rows.shape[1] :]], dim=1)
        changed = {loop.latents: asked, loop.timestep: loop.time(network, t)}
        m: Tensor = loop.from_network(network(**{**call, **changed})[0])[
            :, : z.shape[1]
        ]  # more may follow, e.g. a variance
        return m.to(z.device, torch.promote_types(m.dtype, torch.float32)).chunk(groups)

    def _joined(self, scenes: tuple[int, ...], images: tuple[int, ...]) -> list[Mapping[str, Any]] | None:
        """The arguments of each call for blocks about these scenes and images; None where scenes do not go together."""
        chosen = [self._rehearsals[scene].calls for scene in scenes]
        if len(scenes) == 1 and len(images) == self._batch:
            return list(chosen[0])
        if len({len(calls) for calls in chosen}) > 1:
            return None
        try:
            return [self._rows(calls, images) for calls in zip(*chosen, strict=True)]
        except _Unlike:
            return None

    def _rows(self, calls: Sequence[Mapping[str, Any]], images: tuple[int, ...]) -> dict[str, Any]:
        """One call's arguments about some images of several calls."""
        whole = len(calls[0][self._loop.latents])
        if any(len(call[self._loop.latents]) != whole for call in calls):
            raise _Unlike
        # a doubled batch has all unguided rows first: for each half, the blocks, and for each block, its images
        rows = [
            (call, first + image)
            for first in range(0, whole, self._batch)
            for call in range(len(calls))
            for image in images
        ]
        return _chosen_rows(calls, rows, whole, self._loop.shared)


def _chosen_rows(
    calls: Sequence[Mapping[str, Any]], rows: Sequence[tuple[int, int]], whole: int, shared: tuple[str, ...]
) -> dict[str, Any]:
    """Of arguments with a row per image, the (call, row) pairs asked for; all others must be the same."""
    joined: dict[str, Any] = {}
    if any(call.keys() != calls[0].keys() for call in calls):
        raise _Unlike
    for name, first in calls[0].items():
        values = [call[name] for call in calls]
        if any(type(value) is not type(first) for value in values):
            raise _Unlike
        if isinstance(first, dict):
            joined[name] = _chosen_rows(values, rows, whole, shared)
        elif name not in shared and isinstance(first, Tensor) and first.ndim and len(first) == whole:
            if len({value.shape for value in values}) > 1:
                raise _Unlike
            joined[name] = torch.stack([values[call][row] for call, row in rows])
        elif name not in shared and isinstance(first, list) and len(first) == whole:
            joined[name] = [values[call][row] for call, row in rows]
        elif all(same(value, first) for value in values):
            joined[name] = first
        else:
            raise _Unlike
    return joined


class _Unlike(Exception):  # noqa: N818 - two calls are made then, and nothing is wrong
    """Two scenes ask the network with arguments that cannot be joined."""
