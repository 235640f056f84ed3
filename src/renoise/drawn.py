"""Editing without inversion: the edit starts from the picture noised anew at every level.

One pass a step and prompt, and nothing else: no latents are searched for, nothing can be reconstructed.  The theory is
in `renoise.core.editing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from renoise import images
from renoise.core.checks import keywords, pixel_size
from renoise.core.progress import Progress, checked
from renoise.core.settings import Settings
from renoise.editable import Editable
from renoise.edited import EditRequest, edit_pictures
from renoise.pipelines.adapter import Adapter
from renoise.presets import Preset, chosen_settings
from renoise.record import Driver, Scene
from renoise.texts import one_each

__all__ = ["edit"]


@torch.no_grad()
def edit(
    pipe: Any,
    image: images.Source | Sequence[images.Source],
    source_prompt: str | Sequence[str] | None,
    prompt: str | Sequence[str] | None = None,
    *,
    negative_prompt: str | Sequence[str] | None = None,
    preset: str | Preset | Settings | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    preserve: float | str | Sequence[float | str] | None = None,
    strength: float | None = None,
    source_guidance: float | None = None,
    seed: int = 0,
    mask: images.Source | Sequence[images.Source] | None = None,
    mask_grow: int = 0,
    mask_feather: int | None = None,
    size: int | tuple[int, int] | None = None,
    driver: Driver | None = None,
    pipe_kwargs: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Any:
    """Edits a picture without inverting it, in two network passes a step.

    With few-step models that is 8 passes and no inversion. It reconstructs nothing, and every seed gives another edit.
    With the source prompt as prompt, the picture comes back as the auto-encoder gives it back.

    `pipe`, `image`, `size`, `driver` and `pipe_kwargs` are those of `renoise.invert`; `negative_prompt`, `preserve`,
    `strength`, `source_guidance`, the three of the mask and `progress` are those of `renoise.Inversion.edit`.

    Args:
        source_prompt: what the picture shows; one for all pictures, or one each. "" where nobody can say.
        prompt: what it shall show, likewise. Several prompts for one picture are several edits.
        preset: as for `renoise.invert`; only its number of steps and its guidance scales are read.
        num_inference_steps: steps of the whole schedule.
        guidance_scale: under the new prompt; 1 means no guidance. The source prompt is asked about with the preset's
            ``inversion_guidance_scale``.
        seed: of the noise.

    Returns:
        As `renoise.Inversion.edit`.

    Raises:
        Cancelled, ImageError, NotInvertible, RuntimeError, TypeError, ValueError: as `renoise.invert` and
            `renoise.Inversion.edit`.
    """
    checked(progress)
    adapter, size = Adapter(pipe), pixel_size(size)
    settings = chosen_settings(adapter, preset, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
    sources, batched = images.listed(image)
    given = keywords("pipe_kwargs", pipe_kwargs)
    texts = None if "prompt_embeds" in given else one_each(source_prompt or "", len(sources), "source_prompt")
    scene = Scene(texts, None, settings.inversion_guidance_scale, given)
    target = adapter.size(size)
    adapter.call(scene, settings.num_inference_steps, target, len(sources))  # or refused
    chosen = adapter.driver(driver, given)
    adapter.known_schedule(chosen, settings.num_inference_steps)  # likewise
    request = EditRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance_scale=settings.guidance_scale,
        preserve=preserve,
        strength=strength,
        source_guidance=source_guidance,
        seed=seed,
        mask=mask,
        mask_grow=mask_grow,
        mask_feather=mask_feather,
    )
    fitted = [images.fit(images.open_image(source), target) for source in sources]
    pixels = images.to_tensor([picture for picture, _ in fitted]).to(adapter.device)
    source = Editable(
        pipe=pipe,
        scene=scene,
        settings=settings,
        driver=chosen,
        z_0=torch.empty(0),  # until the picture is encoded
        pixels=pixels,
        boxes=tuple(box for _, box in fitted),
        batched=batched,
    )
    request.check(adapter, source)
    with adapter.turn(), adapter.freeing():
        z_0 = adapter.codec.encode(pixels)
    return edit_pictures(replace(source, z_0=z_0), request, progress)
