"""Pictures that can be edited: inverted ones, drawn ones, and edited ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from renoise.core.settings import Settings
from renoise.core.trajectory import Trajectory
from renoise.images import Box
from renoise.pipelines.families import DESCRIPTIONS, NEGATIVES
from renoise.pipelines.keywords import rows_of
from renoise.record import Driver, Scene
from renoise.texts import one_each

__all__ = ["Editable", "Found", "edited_scene", "scene_of"]


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
        # copies, or one kept picture would keep all of them
        noises, latents = (None if x is None else x[:, rows].clone() for x in (found.noises, found.step_latents))
        one = replace(found, z_T=found.z_T[rows].clone(), noises=noises, step_latents=latents)
        return Found(one, scene_of(self.scene, number, len(found.z_T)))


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
        seed: of the noise with which a picture that was not inverted was edited before; 0 at first.
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
    seed: int = 0

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
            scene=scene_of(self.scene, number, count),
            z_0=self.z_0[rows].clone(),
            pixels=self.pixels[rows].clone(),
            boxes=self.boxes[rows],
            batched=False,
            found=self.found and self.found.row(number),
            shift=None if self.shift is None else self.shift[rows].clone(),
        )


def scene_of(scene: Scene, number: int, count: int) -> Scene:
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
