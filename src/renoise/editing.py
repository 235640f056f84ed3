"""Editing a picture whose way from noise is known, or drawn: from the words of a call to edited pictures.

`Inversion.edit`, `renoise.edit` and `Edited.edit` come together here.  The theory is in `renoise.core.editing`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import torch
from torch import Tensor

from renoise import masks
from renoise.core.budget import kept_steps
from renoise.core.clean import clean_estimate
from renoise.core.draws import white_noise
from renoise.core.editing import (
    Displaced,
    Source,
    count_passes,
    displace,
    inverted_source,
    moved,
    renoised,
    walk,
)
from renoise.core.progress import Progress
from renoise.core.query import Job, Query
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.edit_controls import EditWords
from renoise.editable import Editable, scene_of
from renoise.masks import MaskWords
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.keywords import Call, joined_keywords, same
from renoise.pipelines.stand_in import Measure
from renoise.record import Driver, Scene

__all__ = ["check_edit", "edited_latents"]


@torch.no_grad()
def edited_latents(
    adapter: Adapter,
    source: Editable,
    scene: Scene,
    asked: EditWords,
    mask: MaskWords | None,
    progress: Progress | None,
) -> tuple[Tensor, Tensor | None, int]:
    """The displacement loop for some pictures.

    Returns:
        Edited latents (B, ...), the mask that was used in pixels or None, and network passes per picture.
    """
    count = len(source.pixels)
    unchanged = [
        _same_description(*(scene_of(one, row, count) for one in (source.scene, scene))) for row in range(count)
    ]
    nothing = torch.zeros(count, 1, *source.size)
    if all(unchanged):
        return source.z_0, None if mask is None else nothing if mask.mask is None else mask.pixels(nothing), 0
    passes = _find_latents(adapter, source, asked, progress)
    pixels = None
    if mask is not None:
        allowed = nothing
        if mask.mask is None:
            first = _displaced(adapter, source, scene, asked, None, progress)
            allowed = masks.from_evidence(first.evidence.cpu(), source.size)
            allowed[unchanged] = 0
            passes += first.passes
        pixels = mask.pixels(allowed)
    found = _displaced(adapter, source, scene, asked, pixels, progress)
    latents = found.latents
    latents[unchanged] = source.z_0[unchanged]  # in a batch as alone
    return latents, pixels, passes + found.passes


def _displaced(
    adapter: Adapter,
    source: Editable,
    scene: Scene,
    asked: EditWords,
    mask: Tensor | None,
    progress: Progress | None,
) -> Displaced:
    layout, known = adapter.codec.layout(source.size), known_steps(adapter, source)

    def begin(measure: Measure) -> Job[Displaced]:
        table = measure() if known is None else known
        controls = asked.controls(len(table))
        latents = _source(table, source, asked)
        coarse = None
        if mask is not None:
            height, width = layout.to_maps(source.z_0).shape[-2:]
            coarse = masks.on_latents(mask, (height, width)).to(source.z_0)
        queries = displace(table, latents, controls, mask=coarse, layout=layout)
        return Job(queries, table, count_passes(table, latents.predictions is not None, controls))

    driver, calls = _calls(adapter, source, scene, asked)
    return adapter.run(begin, calls, driver=driver, stage="generate", steps=known, progress=progress)


def _calls(adapter: Adapter, source: Editable, scene: Scene, asked: EditWords) -> tuple[Driver, list[Call]]:
    """How the pipeline is asked about the scenes of an edit: the new one, and the source's where that is needed."""
    shown = [scene] if _knows_predictions(source, asked) and not asked.source_guidance else [scene, source.scene]
    calls = [adapter.call(one, source.settings.num_inference_steps, source.size, len(source.pixels)) for one in shown]
    return source.driver if adapter.answers_directly(shown) else "pipeline", calls


def check_edit(adapter: Adapter, source: Editable, scene: Scene, asked: EditWords) -> None:
    """Refuses an edit with controls that the pipeline or its sampler cannot make, before any network runs."""
    table = known_steps(adapter, source)
    kept_steps(source.settings.num_inference_steps if table is None else len(table), asked.strength)
    if table is not None:
        clean_estimate(table)
    driver, calls = _calls(adapter, source, scene, asked)
    if driver == "pipeline" and len(calls) > 1:
        scales = [one.guidance_scale for one in (scene, source.scene)]
        if scales[0] != scales[1]:
            raise ValueError(
                f"this edit asks about both prompts at once, and the pipeline's own loop has one guidance for both. "
                f"Pass guidance_scale={scales[1]:g}, that of the inversion, or leave source_guidance and randomness out"
            )
        joined_keywords(calls)


def known_steps(adapter: Adapter, source: Editable) -> StepTable | None:
    """The steps of an edit, where they are known before the pipeline's own loop sets them up."""
    if source.found is not None:
        return source.found.trajectory.table
    return adapter.known_schedule(source.driver, source.settings.num_inference_steps)


def _knows_predictions(source: Editable, asked: EditWords) -> bool:
    """Whether the source's predictions follow from the inversion, so that the network need not be asked."""
    return source.found is not None and source.shift is None and asked.randomness == 0


def _source(table: StepTable, source: Editable, asked: EditWords) -> Source:
    """The source latents of an edit."""
    found = None if source.found is None else source.found.trajectory
    if found is not None and _knows_predictions(source, asked):
        return inverted_source(found, source.z_0)
    latents = None if found is None else found.step_latents
    if latents is not None and source.shift is not None:
        latents = moved(table, latents, source.shift)
    share = 1.0 if found is None else asked.randomness
    if share == 0:
        assert latents is not None
        return Source(source.z_0, latents, None)
    further = found is None and source.shift is not None and not asked.randomness  # with the noise that it had
    seed = source.seed if further else asked.seed
    generators = [torch.Generator().manual_seed(seed) for _ in source.boxes]
    one = source.z_0.shape[1:]
    fresh = white_noise(generators, one, steps=len(table), device=source.z_0.device)
    return renoised(table, source.z_0, fresh, share, latents)


def _find_latents(adapter: Adapter, source: Editable, asked: EditWords, progress: Progress | None) -> int:
    """Adds the latents of every step to what the inversion found, where an edit needs them; returns the passes."""
    if source.found is None or source.found.trajectory.step_latents is not None or asked.randomness == 1:
        return 0
    found, scene = source.found.trajectory, source.found.scene
    call = adapter.call(scene, source.settings.num_inference_steps, source.size, len(source.pixels))
    passes = len(found.table) - 1
    if passes == 0:
        source.found.trajectory = replace(found, step_latents=found.z_T[None])
        return 0
    source.found.trajectory = adapter.run(
        lambda measure: Job(_walked(found), found.table, passes),
        [call],
        driver=source.driver,
        stage="walk",
        steps=found.table,
        progress=progress,
    )
    return passes


def _walked(found: Trajectory) -> Generator[Query, Tensor, Trajectory]:
    """The trajectory with the latents of every step."""
    return replace(found, step_latents=(yield from walk(found)))


def _same_description(a: Scene, b: Scene) -> bool:
    """Whether two scenes show the same, whatever the guidance."""
    return (
        (a.prompts, a.negative_prompts) == (b.prompts, b.negative_prompts)
        and a.pipe_kwargs.keys() == b.pipe_kwargs.keys()
        and all(value is b.pipe_kwargs[key] or same(value, b.pipe_kwargs[key]) for key, value in a.pipe_kwargs.items())
    )
