"""An inversion with the pipeline that regenerates from it: reconstruct, edit, replay in a call of one's own, save."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from renoise import archive, files, images, metrics
from renoise.core.progress import Progress
from renoise.core.settings import Settings
from renoise.core.table import StepTable
from renoise.core.trajectory import Trajectory
from renoise.edit_steps import check_steps
from renoise.editable import Editable, Found
from renoise.edited import EditRequest, edit_pictures
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.changes import Watch
from renoise.record import Record, Scene
from renoise.replaying import replayed, replaying

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
        self._editable = Editable(
            pipe=pipe,
            scene=record.scene,
            settings=record.settings,
            driver=record.driver,
            z_0=record.z_0,
            pixels=record.pixels,
            boxes=record.boxes,
            batched=record.batched,
            found=Found(record.trajectory, record.scene),
        )

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
        return self._pictures(self.regenerate(scene, progress=progress))

    def edit(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        preserve: float | str | Sequence[float | str] | None = None,
        strength: float | None = None,
        source_guidance: float | None = None,
        randomness: float = 0.0,
        seed: int = 0,
        mask: images.Source | Sequence[images.Source] | None = None,
        mask_grow: int = 0,
        mask_feather: int | None = None,
        pipe_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Regenerates the picture with another prompt.

        Without any of the controls from `preserve` to `mask` this replays the sampler from the inverted noise under the
        new prompt. With one of them the edit is a displacement of the picture that can be held back; its theory is in
        `renoise.core.editing`. With controls, and the prompt of the inversion, the picture comes back as the
        auto-encoder gives it back, without a pass.

        Args:
            prompt: what the picture shall show; one for all pictures, or one each. Several prompts for one picture are
                several edits. None where `pipe_kwargs` holds embeddings in its place.
            negative_prompt: by default that of the inversion; counts only where guidance is on. The prompt of the
                inversion may be one.
            guidance_scale: 1 means no guidance; by default ``settings.guidance_scale``.
            num_inference_steps: another number of steps, of the whole schedule, for samplers that draw no noise; it is
                walked from the level that the inversion went to. By default the steps of the inversion. Another
                strength takes another inversion. Goes with none of the controls.
            preserve: how much of the picture stays: from 0, where everything may change, to 1; or "creative" (0),
                "balanced" (0.45), "faithful" (0.6). A list of them is a list of edits.
            strength: share of the inverted steps that are edited, in (0, 1], counted from the picture; less keeps more
                of its layout.
            source_guidance: how far to go away from what the picture shows, 0 or more; takes one pass more a step after
                the first. By default what goes well with `preserve`.
            randomness: share of fresh noise, in [0, 1], in what the edit starts from; its variance stays. Other seeds
                then give other edits. Takes one pass more a step.
            seed: of the fresh noise.
            mask: where the picture may change, white on black: a picture as `renoise.invert` takes it, of the shape
                of the one that was inverted, one for all pictures or one each; or "auto", for where the two prompts
                disagree, which takes the edit twice. Beyond the mask the result has the very pixels that were inverted.
            mask_grow: pixels by which the mask is made larger, or smaller where negative.
            mask_feather: pixels over which it fades beyond its edge; by default one for 64 of the shorter side.
            pipe_kwargs: keywords of the pipeline's own call in place of or besides those of the inversion. A new prompt
                drops what said the same in other words: prompt_2, prompt_3, embeddings and their masks; a new negative
                prompt drops negative_prompt_2, negative_prompt_3 and negative embeddings.
            progress: told of every pass, and able to stop; by default the pipeline's own progress bar.

        Returns:
            A `renoise.Edited`, which is a PIL image without the padding, or a list of them where a list was inverted,
            or where several prompts or dials were asked for (prompts outside, then dials, then pictures).

        Raises:
            Cancelled: `progress` was asked to stop.
            RuntimeError: the pipeline is in the middle of an inversion, or of replaying one.
            TypeError, ValueError: an argument that cannot work; says which, why, and what would.
        """
        own = self.settings.num_inference_steps
        if num_inference_steps is not None:  # as a whole number, or refused
            wanted = replace(self.settings, num_inference_steps=num_inference_steps).num_inference_steps
            num_inference_steps = None if wanted == own else wanted
        request = EditRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
            num_inference_steps=None
            if num_inference_steps == self.settings.num_inference_steps
            else num_inference_steps,
            preserve=preserve,
            strength=strength,
            source_guidance=source_guidance,
            randomness=randomness,
            seed=seed,
            mask=mask,
            mask_grow=mask_grow,
            mask_feather=mask_feather,
            pipe_kwargs=pipe_kwargs,
        )
        self._watch.look(self.pipe)
        return edit_pictures(self._editable, request, progress, self._replayed)

    def _replayed(
        self, adapter: Adapter, scene: Scene, request: EditRequest, progress: Progress | None
    ) -> tuple[Tensor, int]:
        """The latents of a replay under another prompt, and its passes."""
        steps = request.num_inference_steps
        check_steps(self.record, adapter, steps)
        return replayed(adapter, self._editable, self.trajectory, scene, steps, progress)

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
            ValueError: raised in the call: steps or latents that are not those of the inversion, what counts the rounds
                of the pipeline's loop, or a callback that changes latents.
        """
        self._watch.look(self.pipe)
        with replaying(self._editable, self.trajectory, negative_prompt, guidance_scale) as wanted:
            yield wanted

    def regenerate(
        self, scene: Scene, num_inference_steps: int | None = None, *, progress: Progress | None = None
    ) -> Tensor:
        """Replays the sampler from the inverted noise; pixels (B, 3, H, W) in [0, 1], padding included."""
        adapter = Adapter(self.pipe)
        self._watch.look(self.pipe)
        with adapter.turn():
            latents, _ = replayed(adapter, self._editable, self.trajectory, scene, num_inference_steps, progress)
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

    def _pictures(self, pixels: Tensor) -> Any:
        boxes = self.record.boxes
        pictures = [images.unfit(picture, box) for picture, box in zip(images.to_pil(pixels), boxes, strict=True)]
        return pictures if self.record.batched else pictures[0]
