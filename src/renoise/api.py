"""Invert a picture into a pipeline; `load`, which reads an inversion back, is in `renoise.saved`.

This is the layer that users touch: it checks what they hand over, picks settings, and joins the rooms below it,

    image -> pixels -> latents -> queries -> trajectory -> record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from renoise import images, models
from renoise.core.budget import check_keeping, check_total, kept_steps
from renoise.core.checks import keywords, pixel_size, scalar, shown, whole
from renoise.core.draws import white_noise
from renoise.core.loop import count_passes
from renoise.core.loop import invert as invert_latents
from renoise.core.progress import Progress, checked
from renoise.core.query import Job
from renoise.core.rolls import draw_rolls
from renoise.core.settings import EditLosses, Settings
from renoise.core.trajectory import Trajectory
from renoise.inverted import Inversion
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.identity import identity
from renoise.pipelines.stand_in import Measure
from renoise.presets import Preset, chosen_settings
from renoise.record import Driver, Record, Scene
from renoise.saved import load
from renoise.texts import one_each

__all__ = ["invert", "load"]


@torch.no_grad()
def invert(
    pipe: Any,
    image: images.Source | Sequence[images.Source],
    prompt: str | Sequence[str] | None = None,
    *,
    negative_prompt: str | Sequence[str] | None = None,
    preset: str | Preset | Settings | None = None,
    passes: int | None = None,
    tol: float | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    inversion_guidance_scale: float | None = None,
    strength: float = 1.0,
    size: int | tuple[int, int] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    seed: int = 0,
    driver: Driver | None = None,
    pipe_kwargs: Mapping[str, Any] | None = None,
    keep_latents: bool = False,
    progress: Progress | None = None,
) -> Inversion:
    """Finds the noise from which the pipeline regenerates a picture.

    Args:
        pipe: a diffusers pipeline of one of the kinds in `renoise.pipelines.families`, with a scheduler whose steps are
            affine (DDIM, ancestral Euler, LCM, flow matching ...); left as it was.
        image: path, PIL image or array of any size and mode, or a list of them. Fitted into ``size`` and padded.
        prompt: what the picture shows; one for all pictures, or one each. Left out, it is the empty prompt, unless
            `pipe_kwargs` holds embeddings; edits then keep less of the picture (docs/editing.md says how much).
        negative_prompt: counts only where guidance is on; by default the pipeline's own.
        preset: one of ``renoise.presets.PRESETS`` or its name, "paper" for the published method, or settings of your
            own; by default what suits pipe and scheduler.
        passes: of the network per picture in all, one per step or more; dealt to the steps as `renoise.core.budget`
            says. By default the preset's. Published presets that average passes fix them, and refuse.
        tol: a picture is done with a step, whatever passes are left, once what it misses is at most this share of its
            latent's RMS, e.g. 1e-2; by default the preset's, which is never.
        num_inference_steps: steps of the whole schedule, N; by default the preset's.
        guidance_scale: of later edits; 1 means no guidance, by default the preset's.
        inversion_guidance_scale: of the inversion; 1 means no guidance, by default the preset's.
        strength: share of the schedule that is walked, in (0, 1]; 1 goes to pure noise.
        size: (height, width) or one number, in pixels; by default the model's own.
        generator: one for each picture, drawing its noise; by default each is seeded with ``seed``, so that a batch
            equals its pictures one by one.
        seed: used where no generator is given, 0 or more.
        driver: "direct" calls the networks without the pipeline's loop, "pipeline" runs the loop itself, which every
            kind, adapter and keyword works with, for one evaluation more; by default "direct" where the kind has it and
            `pipe_kwargs` holds embeddings of prompts at most.
        pipe_kwargs: further keywords of the pipeline's own call, such as prompt_embeds, ip_adapter_image, the image of
            a ControlNet, sigmas or eta. Reconstructing and editing use them too.
        keep_latents: whether ``trajectory.step_latents`` keeps the latents of every step, not of the noisiest alone.
        progress: told of every pass, and able to stop; by default the pipeline's own progress bar.

    Raises:
        Cancelled: `progress` was asked to stop.
        ImageError: a picture that cannot be used.
        NotInvertible: a scheduler whose step cannot be reversed; says what to type instead.
        RuntimeError: the pipeline is in the middle of another inversion, or of replaying one.
        TypeError, ValueError: any other argument that cannot work; says which, why, and what would.
    """
    adapter = Adapter(pipe)
    size, strength = pixel_size(size), scalar(strength)
    settings = chosen_settings(
        adapter,
        preset,
        passes=passes,
        tol=tol,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        inversion_guidance_scale=inversion_guidance_scale,
    )
    adapter.warn_of_guidance(guidance_scale, inversion_guidance_scale)
    sources, batched = images.listed(image)
    given = keywords("pipe_kwargs", pipe_kwargs)
    if prompt is None and given.get("prompt_embeds") is None:
        prompt = ""
    scene = Scene(
        None if prompt is None else one_each(prompt, len(sources), "prompt"),
        None if negative_prompt is None else one_each(negative_prompt, len(sources), "negative_prompt"),
        settings.inversion_guidance_scale,
        given,
    )
    target = adapter.size(size)
    call = adapter.call(scene, settings.num_inference_steps, target, len(sources))
    chosen = adapter.driver(driver, scene.pipe_kwargs)
    generators = _generators(generator, seed, len(sources))
    check_total(settings, kept_steps(settings.num_inference_steps, strength))
    check_keeping(settings, keep_latents)
    checked(progress)
    known = adapter.known_schedule(chosen, settings.num_inference_steps)  # so that it is refused before heavy work
    fitted = [images.fit(images.open_image(source), target) for source in sources]

    started = time.perf_counter()
    with adapter.turn():
        pixels = images.to_tensor([picture for picture, _ in fitted]).to(adapter.device)
        with adapter.freeing():
            z_0 = adapter.codec.encode(pixels)

        def begin(measure: Measure) -> Job[Trajectory]:
            whole = measure() if known is None else known
            table = whole.tail(kept_steps(len(whole), strength))
            one, device, losses = z_0.shape[1:], z_0.device, settings.edit_losses
            queries = invert_latents(
                table,
                z_0,
                settings=settings,
                noises=white_noise(generators, one, steps=len(table), device=device) if table.stochastic else None,
                forward_noise=white_noise(generators, one, device=device) if losses else None,
                rolls=_Rolls(losses, generators, device) if losses else None,
                keep_latents=keep_latents,
            )
            return Job(queries, table, count_passes(table, settings))

        trajectory = adapter.run(begin, [call], driver=chosen, stage="invert", progress=progress)
    record = Record(
        identity=identity(pipe),
        model=models.name_of(pipe),
        scheduler=type(pipe.scheduler).__name__,
        settings=settings,
        scene=scene,
        driver=chosen,
        # in one memory layout, as in a saved file: networks round differently in another
        trajectory=trajectory.mapped(Tensor.contiguous),
        z_0=z_0,
        pixels=pixels,
        boxes=tuple(box for _, box in fitted),
        seconds=time.perf_counter() - started,
        batched=batched,
    )
    return Inversion(record, pipe)


class _Rolls:
    """Draws the rolls of the edit losses, call after call."""

    def __init__(self, losses: EditLosses, generators: Sequence[torch.Generator], device: torch.device) -> None:
        self._losses, self._generators, self._device = losses, generators, device

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        losses = self._losses
        drawn = draw_rolls(shape, steps=losses.steps, rolls=losses.rolls, generators=self._generators)
        return drawn.to(self._device)


def _generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, seed: int, count: int
) -> list[torch.Generator]:
    """One generator per picture."""
    if generator is None:
        remedy = " is not a whole number from 0 to 2**64 - 1; pass one like 0"
        seed = whole("seed", seed, remedy, most=2**64 - 1)
        return [torch.Generator().manual_seed(seed) for _ in range(count)]
    generators = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if not all(isinstance(item, torch.Generator) for item in generators):
        raise TypeError(f"generator={shown(generator)} is not a torch.Generator; for a number, pass seed=")
    if len(generators) != count:
        raise ValueError(
            f"{len(generators)} generators for {count} pictures; pass one each, "
            f"e.g. [torch.Generator().manual_seed(i) for i in range({count})]"
        )
    return cast("list[torch.Generator]", generators)
