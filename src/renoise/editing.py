"""Editing a picture whose way from noise is known, or drawn: from the words of a call to edited pictures.

`Inversion.edit`, `renoise.edit` and `Edited.edit` come together here.  The theory is in `renoise.core.editing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from renoise import masks
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
from renoise.core.query import Job
from renoise.core.settings import Settings
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.edit_controls import EditWords
from renoise.images import Box
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import DESCRIPTIONS, NEGATIVES
from renoise.pipelines.keywords import rows_of, same
from renoise.pipelines.stand_in import Measure
from renoise.record import Driver, Scene
from renoise.texts import one_each

__all__ = ["Editable", "Found", "MaskWords", "edited_latents", "edited_scene", "known_steps"]

_AUTO_SHARE = 0.35  # of the evidence's top, from which on an automatic mask lets the picture change


@dataclass(frozen=True, eq=False)
class MaskWords:
    """A mask as a user asked for it.

    Attributes:
        mask: [batch, 1, height, width] in [0, 1] in pixels, or None for an automatic one.
        grow: pixels by which it is made larger, or smaller where negative.
        feather: pixels over which it fades beyond its edge.
    """

    mask: Tensor | None
    grow: int
    feather: int

    def pixels(self, found: Tensor) -> Tensor:
        """Grown and feathered, from the user's mask or from the one that was found."""
        return masks.feathered(masks.grown(found if self.mask is None else self.mask, self.grow), self.feather)


@dataclass(eq=False)
class Found:
    """What an inversion found.

    Attributes:
        trajectory: its steps, latents and noises.  The latents of every step are added when an edit first needs them.
        scene: what the pictures showed then.
    """

    trajectory: Trajectory
    scene: Scene

    def row(self, number: int) -> Found:
        """For one of the pictures, by itself."""
        found, rows = self.trajectory, slice(number, number + 1)
        noises, latents = (None if x is None else x[:, rows] for x in (found.noises, found.step_latents))
        one = replace(found, z_T=found.z_T[rows], noises=noises, step_latents=latents)
        return Found(one, _scene_of(self.scene, number, len(found.z_T)))


@dataclass(frozen=True, eq=False)
class Editable:
    """B pictures with all that an edit needs of them.

    Attributes:
        pipe: the pipeline that regenerates.
        scene: what the pictures show and how the pipeline is asked about them.
        settings: number of steps, and guidance of edits.
        driver: how the pipeline is asked.
        z_0: clean latents (B, ...), float32.
        pixels: (B, 3, H, W) in [0, 1], padding included.
        boxes: where each picture lies inside its padding.
        batched: whether a list went in, so that a list comes out.
        found: by the inversion, or None where there was none.
        shift: (B, ...), how far z_0 has been moved by edits since the inversion; None for the picture that was
            inverted.
    """

    pipe: Any
    scene: Scene
    settings: Settings
    driver: Driver
    z_0: Tensor
    pixels: Tensor
    boxes: tuple[Box, ...]
    batched: bool
    found: Found | None = None
    shift: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, padding included."""
        height, width = self.pixels.shape[-2:]
        return height, width

    def row(self, number: int) -> Editable:
        """One of the pictures, by itself."""
        rows, count = slice(number, number + 1), len(self.pixels)
        if count == 1:
            return replace(self, batched=False)
        return replace(
            self,
            scene=_scene_of(self.scene, number, count),
            z_0=self.z_0[rows],
            pixels=self.pixels[rows],
            boxes=self.boxes[rows],
            batched=False,
            found=self.found and self.found.row(number),
            shift=None if self.shift is None else self.shift[rows],
        )


def _scene_of(scene: Scene, number: int, count: int) -> Scene:
    """What one of `count` pictures shows."""
    rows = slice(number, number + 1)
    return replace(
        scene,
        prompts=scene.prompts and scene.prompts[rows],
        negative_prompts=scene.negative_prompts and scene.negative_prompts[rows],
        pipe_kwargs=rows_of(scene.pipe_kwargs, number, count),
    )


def edited_scene(
    source: Editable,
    prompt: str | Sequence[str] | None,
    negative_prompt: str | Sequence[str] | None,
    guidance_scale: float | None,
    pipe_kwargs: Mapping[str, Any],
) -> Scene:
    """The scene of an edit: what was given, and of the source's own what that does not replace."""
    own, settings, count = source.scene, source.settings, len(source.pixels)
    if guidance_scale is not None:
        settings = replace(settings, guidance_scale=guidance_scale)
    dropped: set[str] = set()
    if prompt is not None or "prompt_embeds" in pipe_kwargs:
        dropped |= DESCRIPTIONS
    negatives = own.negative_prompts
    if negative_prompt is not None:
        negatives = one_each(negative_prompt, count, "negative_prompt")
    elif "negative_prompt_embeds" in pipe_kwargs:
        negatives = None
    if negative_prompt is not None or "negative_prompt_embeds" in pipe_kwargs:
        dropped |= NEGATIVES
    kept = {key: value for key, value in own.pipe_kwargs.items() if key not in dropped}
    texts = None if prompt is None else one_each(prompt, count, "prompt")
    return Scene(texts, negatives, settings.guidance_scale, kept | dict(pipe_kwargs))


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
    if _same_description(source.scene, scene):
        nothing = torch.zeros(len(source.pixels), 1, *source.size)
        return source.z_0, None if mask is None else nothing if mask.mask is None else mask.pixels(nothing), 0
    spent = _find_latents(adapter, source, asked, progress)
    if mask is None or mask.mask is not None:
        pixels = None if mask is None else mask.pixels(mask.mask)  # type: ignore[arg-type]
        found = _displaced(adapter, source, scene, asked, pixels, progress)
        return found.latents, pixels, spent + found.passes
    first = _displaced(adapter, source, scene, asked, None, progress)
    pixels = mask.pixels(masks.from_evidence(first.evidence.cpu(), source.size, _AUTO_SHARE))
    found = _displaced(adapter, source, scene, asked, pixels, progress)
    return found.latents, pixels, spent + first.passes + found.passes


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

    shown = [scene] if _knows_predictions(source, asked) and not asked.source_guidance else [scene, source.scene]
    calls = [adapter.call(one, source.settings.num_inference_steps, source.size, len(source.pixels)) for one in shown]
    driver = source.driver if adapter.answers_directly(shown) else "pipeline"
    return adapter.run(begin, calls, driver=driver, stage="generate", steps=known, progress=progress)


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
    generators = [torch.Generator().manual_seed(asked.seed) for _ in source.boxes]
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
    latents = found.z_T[None]
    if passes:
        latents = adapter.run(
            lambda measure: Job(walk(found), found.table, passes),
            [call],
            driver=source.driver,
            stage="walk",
            steps=found.table,
            progress=progress,
        )
    source.found.trajectory = replace(found, step_latents=latents)
    return passes


def _same_description(a: Scene, b: Scene) -> bool:
    """Whether two scenes show the same, whatever the guidance."""
    return (
        (a.prompts, a.negative_prompts) == (b.prompts, b.negative_prompts)
        and a.pipe_kwargs.keys() == b.pipe_kwargs.keys()
        and all(value is b.pipe_kwargs[key] or same(value, b.pipe_kwargs[key]) for key, value in a.pipe_kwargs.items())
    )
