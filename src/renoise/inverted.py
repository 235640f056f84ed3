"""An inversion with the pipeline that regenerates from it: reconstruct, edit, replay in a call of one's own, save."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from renoise import archive, files, images, metrics
from renoise.core.checks import keywords
from renoise.core.loop import replay
from renoise.core.progress import Progress, checked
from renoise.core.query import Job
from renoise.core.regrid import regrid
from renoise.core.settings import Settings
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.edit_steps import check_steps
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.changes import Watch
from renoise.pipelines.families import DESCRIPTIONS, NEGATIVES, TEXTS
from renoise.pipelines.known_steps import refuse_other_steps
from renoise.pipelines.stand_in import Measure, placed, stand_in
from renoise.record import Record, Scene
from renoise.texts import one_each

__all__ = ["Inversion"]


class Inversion:
    """A picture (or a batch of B pictures) as the noise from which the pipeline regenerates it.

    Attributes:
        record: everything that was found, without the pipeline; plain data.
        pipe: the pipeline that regenerates; it is left as it was by everything here.
    """

    def __init__(self, record: Record, pipe: Any) -> None:
        """Joins a record and a pipeline that it belongs to, which `renoise.load` checks and this does not."""
        self.record, self.pipe = record, pipe
        self._watch = Watch(pipe)

    @property
    def trajectory(self) -> Trajectory:
        """The sampler's steps, its noises, the passes, and the report of every step."""
        return self.record.trajectory

    @property
    def table(self) -> StepTable:
        """The sampler's steps as measured then; regenerating uses them, whatever scheduler the pipeline has now."""
        return self.record.trajectory.table

    @property
    def latents(self) -> Tensor:
        """z_T: where generation starts, (B, C, h, w) float32."""
        return self.record.trajectory.z_T

    @property
    def z_0(self) -> Tensor:
        """Latents of the picture itself, (B, C, h, w) float32."""
        return self.record.z_0

    @property
    def scene(self) -> Scene:
        """What it was inverted with: prompts, guidance, further keywords of the pipeline's call."""
        return self.record.scene

    @property
    def settings(self) -> Settings:
        """The settings that were used."""
        return self.record.settings

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, padding included."""
        return self.record.size

    @property
    def pixels(self) -> Tensor:
        """The picture as the model saw it, (B, 3, H, W) in [0, 1], padding included."""
        return self.record.pixels

    @property
    def passes(self) -> int:
        """Network passes that the inversion took, per picture (a guided pass counts once)."""
        return self.record.trajectory.passes

    @property
    def seconds(self) -> float:
        """Wall time of the inversion."""
        return self.record.seconds

    def reconstruct(self, *, guidance_scale: float | None = None, progress: Progress | None = None) -> Any:
        """Regenerates the picture with its own prompt.

        Args:
            guidance_scale: 1 means no guidance; by default that of the inversion.
            progress: told of every pass, and able to stop; by default the pipeline's own progress bar.

        Returns:
            A PIL image, or a list of them where a list was inverted, without the padding.

        Raises:
            Cancelled: `progress` was asked to stop.
            RuntimeError: the pipeline is in the middle of an inversion, or of replaying one.
        """
        adapter, scene = Adapter(self.pipe), self.scene
        adapter.warn_of_guidance(guidance_scale)
        if guidance_scale is not None:
            scene = replace(scene, guidance_scale=replace(self.settings, guidance_scale=guidance_scale).guidance_scale)
        return self._pictures(self._regenerated(adapter, scene, progress=progress))

    def edit(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        pipe_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Regenerates the picture with another prompt.

        Args:
            prompt: what the picture shall show; one for all pictures, or one each. None where `pipe_kwargs` holds
                embeddings in its place.
            negative_prompt: by default that of the inversion; counts only where guidance is on.
            guidance_scale: 1 means no guidance; by default ``settings.guidance_scale``.
            num_inference_steps: another number of steps, of the whole schedule, for samplers that draw no noise; it is
                walked from the level that the inversion went to. By default the steps of the inversion. Another
                strength takes another inversion.
            pipe_kwargs: keywords of the pipeline's own call in place of or besides those of the inversion. A new prompt
                drops what said the same in other words: prompt_2, prompt_3, embeddings and their masks; a new negative
                prompt drops negative_prompt_2, negative_prompt_3 and negative embeddings.
            progress: told of every pass, and able to stop; by default the pipeline's own progress bar.

        Returns:
            A PIL image, or a list of them where a list was inverted, without the padding.

        Raises:
            Cancelled: `progress` was asked to stop.
            RuntimeError: the pipeline is in the middle of an inversion, or of replaying one.
            TypeError, ValueError: an argument that cannot work; says which, why, and what would.
        """
        checked(progress)
        adapter, given = Adapter(self.pipe), keywords("pipe_kwargs", pipe_kwargs)
        adapter.warn_of_guidance(guidance_scale)
        if num_inference_steps is not None:  # as a whole number, or refused
            settings = replace(self.settings, num_inference_steps=num_inference_steps)
            num_inference_steps = settings.num_inference_steps
        if num_inference_steps == self.settings.num_inference_steps:
            num_inference_steps = None
        check_steps(self.record, adapter, given, num_inference_steps)
        texts = None if prompt is None else one_each(prompt, len(self.pixels), "prompt")
        scene = self._edited(texts, negative_prompt, guidance_scale, given)
        return self._pictures(self._regenerated(adapter, scene, num_inference_steps, progress))

    def _edited(
        self,
        texts: tuple[str, ...] | None,
        negative_prompt: str | Sequence[str] | None,
        guidance_scale: float | None,
        given: Mapping[str, Any],
    ) -> Scene:
        """The scene of an edit: what was given, and of the inversion's own what that does not replace."""
        source, settings = self.scene, self.settings
        if guidance_scale is not None:
            settings = replace(settings, guidance_scale=guidance_scale)
        dropped: set[str] = set()
        if texts is not None or "prompt_embeds" in given:
            dropped |= DESCRIPTIONS
        negatives = source.negative_prompts
        if negative_prompt is not None:
            negatives = one_each(negative_prompt, len(self.pixels), "negative_prompt")
        elif "negative_prompt_embeds" in given:
            negatives = None
        if negative_prompt is not None or "negative_prompt_embeds" in given:
            dropped |= NEGATIVES
        kept = {key: value for key, value in source.pipe_kwargs.items() if key not in dropped}
        return Scene(texts, negatives, settings.guidance_scale, kept | dict(given))

    @contextmanager
    def replaying(
        self, *, negative_prompt: str | Sequence[str] | None = None, guidance_scale: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Has the pipeline itself replay this inversion, with whatever prompt and callbacks it is called inside.

            with inv.replaying() as keywords:
                pipe("green apple", **keywords, callback_on_step_end=look).images[0]

        The call inside makes the picture that `edit` makes with the same prompt.  Its first evaluation is discarded
        (see `renoise.pipelines.stand_in`), so a callback is called once more than there are steps, and its pictures
        still have their padding.

        Args:
            negative_prompt: by default that of the inversion; counts only where guidance is on.
            guidance_scale: 1 means no guidance; by default ``settings.guidance_scale``.

        Yields:
            All that the call needs beside a prompt: size, number of steps, guidance as this kind of pipeline spells it,
            and the keywords of the inversion that do not describe its picture.

        Raises:
            RuntimeError: the pipeline is in the middle of an inversion, or of replaying one.
            ValueError: raised in the call: steps that are not those of the inversion.
        """
        adapter, count = Adapter(self.pipe), len(self.pixels)
        self._watch.look(self.pipe)
        scene = self._edited(("",) * count, negative_prompt, guidance_scale, {})
        call = adapter.call(scene, self.settings.num_inference_steps, self.size)
        wanted = {name: value for name, value in call.keywords.items() if name not in DESCRIPTIONS | {"prompt"}}
        if not self.record.batched:  # one text goes with one text, and a list with a list
            for name in ({"negative_prompt"} | TEXTS) & wanted.keys():
                wanted[name] = wanted[name] and wanted[name][0]
        replaying = stand_in(
            self.pipe.scheduler,
            lambda measure: self._replay(self.table),
            steps=self.table,
            on_schedule=partial(refuse_other_steps, self.settings.num_inference_steps, self.scene.pipe_kwargs),
        )
        with adapter.turn(), placed(self.pipe, replaying):
            yield wanted

    def regenerate(
        self, scene: Scene, num_inference_steps: int | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """Replays the sampler from the inverted noise; pixels (B, 3, H, W) in [0, 1], padding included."""
        return self._regenerated(Adapter(self.pipe), scene, num_inference_steps, progress)

    @torch.no_grad()
    def _regenerated(
        self,
        adapter: Adapter,
        scene: Scene,
        num_inference_steps: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        table = self.table
        self._watch.look(self.pipe)

        def begin(measure: Measure) -> Job[Tensor]:
            return self._replay(table if num_inference_steps is None else regrid(table, measure()))

        steps = num_inference_steps or self.settings.num_inference_steps
        call = adapter.call(scene, steps, self.size, len(self.pixels))
        driver = adapter.kept_driver(self.record.driver, scene.pipe_kwargs)
        known = table if num_inference_steps is None else None
        with adapter.turn():
            latents = adapter.run(begin, [call], driver=driver, stage="generate", steps=known, progress=progress)
            return self._decoded(adapter, latents)

    def round_trip(self) -> Tensor:
        """The picture through the auto-encoder alone, (B, 3, H, W) in [0, 1]: the ceiling of any inversion."""
        return self._decoded(Adapter(self.pipe), self.z_0)

    def ceiling(self) -> Tensor:
        """PSNR in dB of the auto-encoder's round trip, per picture (B,)."""
        return metrics.psnr(self.round_trip(), self.pixels)

    def fidelity(self) -> Tensor:
        """PSNR in dB of the reconstruction against the picture, per picture (B,)."""
        return metrics.psnr(self.regenerate(self.scene), self.pixels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything but the pipeline to one safetensors file (see ``renoise.load``).

        An earlier file is replaced when the new one is complete, and not before.
        """
        files.write(path, archive.dumps(self.record))

    def _decoded(self, adapter: Adapter, latents: Tensor) -> Tensor:
        with adapter.turn(), adapter.freeing():
            return adapter.codec.decode(latents, self.size)

    def _replay(self, table: StepTable) -> Job[Tensor]:
        return Job(replay(table, self.latents, self.trajectory.noises), table, len(table))

    def _pictures(self, pixels: Tensor) -> Any:
        boxes = self.record.boxes
        pictures = [images.unfit(picture, box) for picture, box in zip(images.to_pil(pixels), boxes, strict=True)]
        return pictures if self.record.batched else pictures[0]
