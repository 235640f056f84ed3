"""Replaying an inversion with whatever prompt: by this package, or in a call of the pipeline that the user makes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from renoise.core.loop import replay
from renoise.core.progress import Progress
from renoise.core.query import Job, Query
from renoise.core.regrid import regrid
from renoise.core.trajectory import Trajectory
from renoise.editable import Editable, edited_scene
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import DESCRIPTIONS, TEXTS
from renoise.pipelines.known_steps import refuse_other_steps
from renoise.pipelines.own_calls import checked_calls
from renoise.pipelines.stand_in import Measure, placed, stand_in
from renoise.record import Scene

__all__ = ["replayed", "replaying"]


@torch.no_grad()
def replayed(
    adapter: Adapter,
    source: Editable,
    found: Trajectory,
    scene: Scene,
    num_inference_steps: int | None,
    progress: Progress | None,
) -> tuple[Tensor, int]:
    """Replays the sampler from the inverted noise.

    Args:
        adapter: the pipeline.
        source: the pictures that were inverted.
        found: their trajectory.
        scene: what the pipeline is to show.
        num_inference_steps: another number of steps than those of the inversion; None for the same.
        progress: told of every pass.

    Returns:
        Clean latents (B, ...), and the network passes that they took.
    """
    table = found.table

    def begin(measure: Measure) -> Job[tuple[Tensor, int]]:
        steps = table if num_inference_steps is None else regrid(table, measure())
        return Job(_counted(replay(steps, found.z_T, found.noises), len(steps)), steps, len(steps))

    steps = num_inference_steps or source.settings.num_inference_steps
    call = adapter.call(scene, steps, source.size, len(source.pixels))
    driver = source.driver if adapter.answers_directly([scene]) else "pipeline"
    known = table if num_inference_steps is None else None
    return adapter.run(begin, [call], driver=driver, stage="generate", steps=known, progress=progress)


def _counted(queries: Generator[Query, Tensor, Tensor], passes: int) -> Generator[Query, Tensor, tuple[Tensor, int]]:
    return (yield from queries), passes


@contextmanager
def replaying(
    source: Editable, found: Trajectory, negative_prompt: str | Sequence[str] | None, guidance_scale: float | None
) -> Iterator[dict[str, Any]]:
    """Has the pipeline itself replay a trajectory while this is entered; see `renoise.Inversion.replaying`.

    Args:
        source: the pictures that were inverted.
        found: their trajectory.
        negative_prompt: of the call, as in `renoise.Inversion.replaying`.
        guidance_scale: likewise.

    Yields:
        All that the call needs beside a prompt.
    """
    adapter, steps = Adapter(source.pipe), source.settings.num_inference_steps
    scene = edited_scene(source, ("",) * len(source.pixels), negative_prompt, guidance_scale, {})
    call = adapter.call(scene, steps, source.size)
    wanted = {name: value for name, value in call.keywords.items() if name not in DESCRIPTIONS | {"prompt"}}
    if not source.batched:  # one text goes with one text, and a list with a list
        for name in ({"negative_prompt"} | TEXTS) & wanted.keys():
            wanted[name] = wanted[name] and wanted[name][0]
    standing = stand_in(
        source.pipe.scheduler,
        lambda measure: Job(replay(found.table, found.z_T, found.noises), found.table, len(found.table)),
        steps=found.table,
        on_schedule=partial(refuse_other_steps, steps, source.scene.pipe_kwargs),
    )
    with adapter.turn(), placed(source.pipe, standing), checked_calls(source.pipe, wanted):
        yield wanted
