"""Edited pictures: what an edit returns, which can be the source of the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image
from torch import Tensor

from renoise import images, masks
from renoise.core.checks import keywords
from renoise.core.progress import Progress, checked
from renoise.edit_controls import EditWords, words
from renoise.edit_steps import refuse_grid
from renoise.editable import Editable, edited_scene
from renoise.editing import check_edit, edited_latents
from renoise.masks import MaskWords
from renoise.pipelines.adapter import Adapter
from renoise.record import Scene

__all__ = ["EditRequest", "Edited", "edit_pictures"]


class Edited(Image.Image):
    """An edited picture: a PIL image, without padding, that knows how it came about.

    Copies, crops and what comes back from pickle or from a file are plain PIL images.

    Attributes:
        prompt: what it was asked to show; None where that was given by embeddings.
        passes: network passes of the edit (a guided pass counts once), those to find source latents or an automatic
            mask included.
        mask: where it was allowed to change, float32 (height, width) in [0, 1] on the CPU; None without a mask.
    """

    prompt: str | None
    passes: int
    mask: Tensor | None

    def __init__(self, picture: Image.Image, source: Editable, mask: Tensor | None, passes: int) -> None:
        """Joins a picture, itself as the source of further edits, and what is known about its making."""
        self.__setstate__(picture.__getstate__())
        self.prompt = source.scene.prompts[0] if source.scene.prompts else None
        self.passes, self.mask, self._source = passes, mask, source

    def __reduce__(self) -> Any:
        return _plain, (self.copy(),)

    @property
    def latents(self) -> Tensor:
        """Its clean latents, (1, C, h, w) or (1, tokens, C) float32."""
        return self._source.z_0

    @property
    def editable(self) -> Editable:
        """Itself as the source of further edits, for who keeps it on another device in between."""
        return self._source

    def edit(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        preserve: float | str | Sequence[float | str] | None = None,
        strength: float | None = None,
        source_guidance: float | None = None,
        randomness: float = 0.0,
        seed: int = 0,
        mask: images.Source | None = None,
        mask_grow: int = 0,
        mask_feather: int | None = None,
        pipe_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Edits this picture further, without another trip through the auto-encoder.

        What the next prompt has in common with that of this picture stays as it is. The arguments are those of
        `renoise.Inversion.edit`; the network is asked about both prompts, so a step takes two passes.
        """
        request = EditRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            guidance_scale=guidance_scale,
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
        return edit_pictures(self._source, request, progress)


def _plain(picture: Image.Image) -> Image.Image:
    """What pickle calls to make a plain picture of a copy."""
    return picture


@dataclass(frozen=True, eq=False)
class EditRequest:
    """The arguments of an edit as a user gave them; see `renoise.Inversion.edit`."""

    prompt: Any
    negative_prompt: Any = None
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    pipe_kwargs: Mapping[str, Any] | None = None
    preserve: Any = None
    strength: Any = None
    source_guidance: Any = None
    randomness: Any = 0.0
    seed: Any = 0
    mask: Any = None
    mask_grow: Any = 0
    mask_feather: Any = None

    def several(self, source: Editable) -> list[EditRequest]:
        """One request per prompt for a single picture, or per value of `preserve`; empty where both are one."""
        if isinstance(self.prompt, (list, tuple)) and not source.batched and len(self.prompt) != 1:
            return [replace(self, prompt=text) for text in self.prompt]
        if isinstance(self.preserve, (list, tuple)):
            return [replace(self, preserve=value) for value in self.preserve]
        return []

    def check(self, adapter: Adapter, source: Editable) -> None:
        """Refuses what cannot work, in all of the edits that are asked for; of the source it reads no latents."""
        several = self.several(source)
        for one in several:
            one.check(adapter, source)
        if several:
            return
        asked, mask, scene = self.words(), self.masks(source), self.scene(source)
        refuse_grid(keywords("pipe_kwargs", self.pipe_kwargs))
        adapter.call(scene, source.settings.num_inference_steps, source.size, len(source.pixels))
        if self.is_plain(source, asked, mask):
            return
        if self.num_inference_steps is not None:
            raise ValueError(
                f"num_inference_steps={self.num_inference_steps} with preserve, strength, source_guidance, randomness "
                "or mask: these work on the steps of the inversion; leave one or the other out"
            )
        check_edit(adapter, source, scene, asked.guided(scene.guidance_scale))

    @staticmethod
    def is_plain(source: Editable, asked: EditWords, mask: MaskWords | None) -> bool:
        """Whether the edit is a replay of an inversion under another prompt, and nothing more."""
        return source.found is not None and source.shift is None and mask is None and asked.plain

    def scene(self, source: Editable) -> Scene:
        """What the edit is to show."""
        given = keywords("pipe_kwargs", self.pipe_kwargs)
        return edited_scene(source, self.prompt, self.negative_prompt, self.guidance_scale, given)

    def words(self) -> EditWords:
        """Checked controls."""
        return words(self.preserve, self.strength, self.source_guidance, self.randomness, self.seed)

    def masks(self, source: Editable) -> MaskWords | None:
        """The checked mask."""
        feather = self.mask_feather
        if feather is None and isinstance(self.mask, Tensor):
            feather = 0  # the mask of an edited picture fades already
        grow, feather = masks.check_amounts(self.mask_grow, feather, source.size)
        if self.mask is None:
            return None
        automatic = isinstance(self.mask, str) and self.mask == "auto"
        opened = None if automatic else masks.opened(self.mask, source.boxes, source.size)
        asked = MaskWords(opened, source.boxes, grow, feather)
        if opened is not None and grow < 0 and not asked.pixels(opened).any():
            raise ValueError(f"mask_grow={grow} leaves nothing of the mask: pass a number nearer to 0")
        return asked


Replay = Callable[[Adapter, Scene, EditRequest, Progress | None], tuple[Tensor, int]]


def edit_pictures(
    source: Editable, request: EditRequest, progress: Progress | None, replay: Replay | None = None
) -> Any:
    """Edited pictures: one, or a list where several were edited or several edits asked for.

    Args:
        source: the pictures.
        request: what is asked for.
        progress: told of every pass.
        replay: makes an edit without controls, where the pictures were inverted: latents (B, ...), and the passes.

    Raises:
        Cancelled: `progress` was asked to stop.
        RuntimeError: the pipeline is in the middle of an inversion, or of replaying one.
        TypeError, ValueError: an argument that cannot work; says which, why, and what would.
    """
    adapter = Adapter(source.pipe)
    request.check(adapter, source)
    several = request.several(source)
    if several:
        return [edit_pictures(source, one, progress, replay) for one in several]
    checked(progress)
    asked, mask, scene = request.words(), request.masks(source), request.scene(source)
    adapter.warn_of_guidance(request.guidance_scale)
    with adapter.turn():
        if replay is not None and request.is_plain(source, asked, mask):
            latents, passes = replay(adapter, scene, request, progress)
            return _finished(adapter, source, scene, latents, None, passes, source.seed)
        asked = asked.guided(scene.guidance_scale)
        latents, pixels, passes = edited_latents(adapter, source, scene, asked, mask, progress)
        seed = asked.seed if source.shift is None or asked.randomness else source.seed
        return _finished(adapter, source, scene, latents, pixels, passes, seed)


def _finished(
    adapter: Adapter, source: Editable, scene: Scene, latents: Tensor, mask: Tensor | None, passes: int, seed: int
) -> Edited | list[Edited]:
    """Decodes edited latents and puts the source's own pixels back beyond the mask."""
    with adapter.turn(), adapter.freeing():
        pixels = adapter.codec.decode(latents, source.size).to(source.pixels)
    if mask is not None:
        pixels = masks.blended(source.pixels, pixels, mask.to(pixels))
    after = replace(
        source,
        scene=replace(scene, guidance_scale=source.scene.guidance_scale),
        z_0=latents,
        pixels=pixels,
        shift=latents - source.z_0 if source.shift is None else source.shift + latents - source.z_0,
        seed=seed,
    )
    results = []
    for number, (picture, box) in enumerate(zip(images.to_pil(pixels), source.boxes, strict=True)):
        left, top, right, bottom = box
        own = None if mask is None else mask[number, 0, top:bottom, left:right].clone()
        results.append(Edited(images.unfit(picture, box), after.row(number), own, passes))
    return results if source.batched else results[0]
