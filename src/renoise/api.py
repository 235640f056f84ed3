"""Invert a picture into a pipeline, reconstruct it, edit it with words, keep the result in one file.

This is the layer that users touch: it checks what they hand over, picks settings, and joins the rooms below it,
pixels -> codec -> inversion loop <-> denoiser -> replay -> codec -> pixels.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from renoise import images, metrics
from renoise.core.edit_losses import draw_rolls
from renoise.core.loop import Query, Trajectory, count_passes, drive, replay
from renoise.core.loop import invert as invert_latents
from renoise.core.regrid import regrid
from renoise.core.table import StepTable
from renoise.pipelines import codecs
from renoise.pipelines.direct_transformer import RehearsedDenoiser, rehearse
from renoise.pipelines.direct_unet import DirectDenoiser
from renoise.pipelines.families import (
    EMBEDDINGS,
    FAMILIES,
    Loop,
    call_keywords,
    denoiser,
    family,
    few_step,
    target_size,
)
from renoise.pipelines.stand_in import Job, Measure, placed, stand_in, through
from renoise.presets import Settings, preset_for

__all__ = ["Driver", "Inversion", "Scene", "chosen_settings", "invert", "measured_table", "plainly_scheduled"]

Driver = Literal["direct", "pipeline"]
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Scene:
    """What a pipeline is to show, one prompt per picture, and how it is asked.

    Attributes:
        prompts: one per picture, or None where `pipe_kwargs` holds embeddings.
        negative_prompts: one per picture, or None for the pipeline's default; they count under guidance only.
        guidance_scale: 1 for none, or more.
        pipe_kwargs: further keywords of the pipeline's own call.
    """

    prompts: tuple[str, ...] | None
    negative_prompts: tuple[str, ...] | None
    guidance_scale: float
    pipe_kwargs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture (or a batch of B pictures) as the noise from which the pipeline regenerates it.

    Attributes:
        pipe: the pipeline that it was made with; regenerating uses it.
        scheduler: name of the class of the scheduler that it was made with.
        table: the sampler's steps as measured then; regenerating uses them, whatever scheduler the pipeline has now.
        settings: the settings that were used.
        scene: what it was inverted with: prompts, guidance, further keywords of the pipeline's call.
        driver: "direct" where the networks were called directly, "pipeline" where the pipeline's own loop was used.
        trajectory: latents z_T (B, C, h, w), the sampler's noises, passes, and the report of every step.
        z_0: latents of the picture itself (B, C, h, w), float32.
        pixels: the picture as the model saw it, (B, 3, H, W) in [0, 1].
        boxes: where the picture lies inside its padding, per picture.
        seconds: wall time of the inversion.
        batched: whether a list went in, so that a list comes out.
    """

    pipe: Any
    scheduler: str
    table: StepTable
    settings: Settings
    scene: Scene
    driver: Driver
    trajectory: Trajectory
    z_0: Tensor
    pixels: Tensor
    boxes: tuple[images.Box, ...]
    seconds: float
    batched: bool

    @property
    def latents(self) -> Tensor:
        """z_T: where generation starts, (B, C, h, w) float32."""
        return self.trajectory.z_T

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, padding included."""
        height, width = self.pixels.shape[-2:]
        return height, width

    @property
    def passes(self) -> int:
        """Network passes that the inversion took, per picture (a guided pass counts once)."""
        return self.trajectory.passes

    def reconstruct(self, *, guidance_scale: float | None = None) -> Any:
        """Regenerates the picture with its own prompt.

        Args:
            guidance_scale: 1 means no guidance; by default that of the inversion.

        Returns:
            A PIL image, or a list of them where a list was inverted, without the padding.
        """
        scene = self.scene
        if guidance_scale is not None:
            scene = replace(scene, guidance_scale=replace(self.settings, guidance_scale=guidance_scale).guidance_scale)
        return self._pictures(self.regenerate(scene))

    def edit(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        pipe_kwargs: Mapping[str, Any] | None = None,
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
            pipe_kwargs: keywords of the pipeline's own call in place of or besides those of the inversion.

        Returns:
            A PIL image, or a list of them where a list was inverted, without the padding.

        Raises:
            TypeError, ValueError: an argument that cannot work; says which, why, and what would.
        """
        given = dict(pipe_kwargs or {})
        if num_inference_steps == self.settings.num_inference_steps:
            num_inference_steps = None
        self._check_schedule(given, num_inference_steps)
        count = len(self.pixels)
        negatives = None if "negative_prompt_embeds" in given else self.scene.negative_prompts
        if negative_prompt is not None:
            negatives = _texts(negative_prompt, count, "negative_prompt")
        settings = self.settings
        if guidance_scale is not None:
            settings = replace(settings, guidance_scale=guidance_scale)
        negative = {key for key in EMBEDDINGS if key.startswith("negative_")}
        dropped: set[str] = set() if negative_prompt is None else negative
        if prompt is not None or "prompt_embeds" in given:  # what the picture showed
            dropped = dropped | (EMBEDDINGS - negative)
        kept = {key: value for key, value in self.scene.pipe_kwargs.items() if key not in dropped}
        texts = None if prompt is None else _texts(prompt, count, "prompt")
        scene = Scene(texts, negatives, settings.guidance_scale, kept | given)
        return self._pictures(self.regenerate(scene, num_inference_steps))

    @contextmanager
    def replaying(self) -> Iterator[dict[str, Any]]:
        """Has the pipeline itself replay this inversion, with whatever prompt and keywords it is called inside.

            with inv.replaying() as keywords:
                pipe("green apple", **keywords, callback_on_step_end=look).images[0]

        Yields the keywords that the call needs: size and number of steps. Its first evaluation is thrown away (see
        `renoise.pipelines.stand_in`), so callbacks see one step more, and its pictures still have their padding.
        """

        height, width = self.size
        with placed(self.pipe, stand_in(self.pipe.scheduler, lambda measure: self._replay(self.table))):
            yield {"height": height, "width": width, "num_inference_steps": self.settings.num_inference_steps}

    @torch.no_grad()
    def regenerate(self, scene: Scene, num_inference_steps: int | None = None) -> Tensor:
        """Replays the sampler from the inverted noise; pixels (B, 3, H, W) in [0, 1], padding included."""

        def begin(measure: Measure) -> Job[Tensor]:
            return self._replay(self.table if num_inference_steps is None else regrid(self.table, measure()))

        steps = num_inference_steps or self.settings.num_inference_steps
        driver: Driver = self.driver if scene.pipe_kwargs.keys() <= EMBEDDINGS else "pipeline"
        latents = _run(self.pipe, begin, scene, steps, self.size, driver, "generate")
        return self._decoded(latents)

    def round_trip(self) -> Tensor:
        """The picture through the auto-encoder alone, (B, 3, H, W) in [0, 1]: the ceiling of any inversion."""
        return self._decoded(self.z_0)

    def ceiling(self) -> Tensor:
        """PSNR in dB of the auto-encoder's round trip, per picture (B,)."""
        return metrics.psnr(self.round_trip(), self.pixels)

    def fidelity(self) -> Tensor:
        """PSNR in dB of the reconstruction against the picture, per picture (B,)."""
        return metrics.psnr(self.regenerate(self.scene), self.pixels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything but the pipeline to one safetensors file (see ``renoise.load``)."""
        from renoise.archive import save

        save(self, path)

    def _check_schedule(self, pipe_kwargs: Mapping[str, Any], num_inference_steps: int | None) -> None:
        """Refuses, by ValueError, an edit on steps that are neither the inversion's nor to be had by re-gridding."""
        grid = ("timesteps", "sigmas", "mu", "eta")
        for keyword in grid:
            if keyword in pipe_kwargs:
                raise ValueError(
                    f"{keyword} in pipe_kwargs of an edit: it uses the steps of the inversion; leave it out, or invert "
                    f"again with pipe_kwargs={{{keyword!r}: ...}}"
                )
        if num_inference_steps is None:
            return
        replace(self.settings, num_inference_steps=num_inference_steps)  # refuses what is no number of steps
        now = type(self.pipe.scheduler).__name__
        if now != self.scheduler:
            raise ValueError(
                f"num_inference_steps={num_inference_steps} after an inversion with {self.scheduler}, and the pipeline "
                f"has {now} now: give it the scheduler of the inversion, or leave the number out"
            )
        own = [keyword for keyword in grid if keyword in self.scene.pipe_kwargs]
        if own:
            raise ValueError(
                f"num_inference_steps={num_inference_steps} after an inversion with {', '.join(own)} of your own: "
                "leave it out, or invert again without"
            )

    def _decoded(self, latents: Tensor) -> Tensor:
        with _freeing(self.pipe):
            return codecs.decode(self.pipe, latents, self.size)

    def _replay(self, table: StepTable) -> Job[Tensor]:
        return Job(replay(table, self.trajectory.z_T, self.trajectory.noises), table, len(table))

    def _pictures(self, pixels: Tensor) -> Any:
        pictures = [images.unfit(picture, box) for picture, box in zip(images.to_pil(pixels), self.boxes, strict=True)]
        return pictures if self.batched else pictures[0]


@torch.no_grad()
def invert(
    pipe: Any,
    image: images.Source | Sequence[images.Source],
    prompt: str | Sequence[str] | None = None,
    *,
    negative_prompt: str | Sequence[str] | None = None,
    preset: str | Settings | None = None,
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
) -> Inversion:
    """Finds the noise from which the pipeline regenerates a picture.

    Args:
        pipe: a diffusers pipeline of one of the kinds in `renoise.pipelines.families`, with a scheduler whose steps are
            affine (DDIM, ancestral Euler, LCM, flow matching ...); left as it was.
        image: path, PIL image or array of any size and mode, or a list of them. Fitted into ``size`` and padded.
        prompt: what the picture shows; one for all pictures, or one each. None where `pipe_kwargs` holds embeddings.
        negative_prompt: counts only where guidance is on; by default the pipeline's own.
        preset: a name of ``renoise.presets.PRESETS`` or settings of your own; by default what suits pipe and scheduler.
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

    Raises:
        ImageError: a picture that cannot be used.
        NotInvertible: a scheduler whose step cannot be reversed; says what to type instead.
        TypeError, ValueError: any other argument that cannot work; says which, why, and what would.
    """
    settings = chosen_settings(
        pipe,
        preset,
        passes=passes,
        tol=tol,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        inversion_guidance_scale=inversion_guidance_scale,
    )
    batched = isinstance(image, (list, tuple))
    sources = list(cast("Sequence[images.Source]", image)) if batched else [cast("images.Source", image)]
    if not sources:
        raise ValueError(f"image={image!r} holds no picture; pass one picture or a list of at least one")
    scene = Scene(
        None if prompt is None else _texts(prompt, len(sources), "prompt"),
        None if negative_prompt is None else _texts(negative_prompt, len(sources), "negative_prompt"),
        settings.inversion_guidance_scale,
        dict(pipe_kwargs or {}),
    )
    call_keywords(pipe, scene.prompts, scene.negative_prompts, scene.guidance_scale, scene.pipe_kwargs)  # checks them
    chosen = _chosen_driver(pipe, driver, scene)
    generators = _generators(generator, seed, len(sources))
    target = target_size(pipe, size)
    kept = _kept_steps(settings.num_inference_steps, strength)
    # measured before any heavy work where that is possible: the scheduler may be refused, or the number of passes
    whole = measured_table(pipe, settings.num_inference_steps) if plainly_scheduled(pipe, chosen) else None
    if whole is not None:
        count_passes(whole.tail(kept), settings)
    fitted = [images.fit(images.open_image(source), target) for source in sources]

    started = time.perf_counter()
    device = pipe._execution_device
    pixels = images.to_tensor([picture for picture, _ in fitted]).to(device)
    with _freeing(pipe):
        z_0 = codecs.encode(pipe, pixels).contiguous()

    def draw(*lead: int) -> Tensor:
        """White noise (*lead, B, C, h, w), each picture's from its own generator."""
        shape = (*lead, *z_0.shape[1:])
        drawn = [torch.randn(shape, generator=g, dtype=torch.float32, device=g.device) for g in generators]
        return torch.stack([noise.to(device) for noise in drawn], dim=len(lead))

    losses = settings.edit_losses

    def rolls(shape: tuple[int, ...]) -> Tensor:
        assert losses is not None
        return draw_rolls(shape, steps=losses.steps, rolls=losses.rolls, generators=generators).to(device)

    table: StepTable | None = None

    def begin(measure: Measure) -> Job[Trajectory]:
        nonlocal table
        measured = measure() if whole is None else whole
        table = measured.tail(_kept_steps(len(measured), strength))
        queries = invert_latents(
            table,
            z_0,
            settings=settings,
            noises=draw(len(table)) if table.stochastic else None,
            forward_noise=draw() if losses else None,
            rolls=rolls if losses else None,
        )
        return Job(queries, table, count_passes(table, settings))

    found = _run(pipe, begin, scene, settings.num_inference_steps, target, chosen, "invert")
    assert table is not None
    # one memory layout, as in a saved file: networks round differently in another
    noises = None if found.noises is None else found.noises.contiguous()
    return Inversion(
        pipe=pipe,
        scheduler=type(pipe.scheduler).__name__,
        table=table,
        settings=settings,
        scene=scene,
        driver=chosen,
        trajectory=replace(found, z_T=found.z_T.contiguous(), noises=noises),
        z_0=z_0,
        pixels=pixels,
        boxes=tuple(box for _, box in fitted),
        seconds=time.perf_counter() - started,
        batched=batched,
    )


def _run(
    pipe: Any,
    begin: Callable[[Measure], Job[_Result]],
    scene: Scene,
    num_inference_steps: int,
    size: tuple[int, int],
    driver: Driver,
    title: str,
) -> _Result:
    """Has the pipeline answer a job, under a progress bar that counts passes."""
    if getattr(denoiser(pipe), "is_cache_enabled", False):
        raise ValueError(
            f"the network of this {type(pipe).__name__} has a step cache, which repeats answers to other questions: do "
            "pipe.transformer.disable_cache() first"
        )
    keywords = call_keywords(pipe, scene.prompts, scene.negative_prompts, scene.guidance_scale, scene.pipe_kwargs)
    keywords |= {"height": size[0], "width": size[1], "num_inference_steps": num_inference_steps}
    with _freeing(pipe), pipe.progress_bar(total=num_inference_steps) as bar:
        bar.set_description(title)
        if driver == "pipeline":
            return through(pipe, begin, keywords, on_begin=lambda passes: bar.reset(total=passes), on_pass=bar.update)
        job, denoise = _directly(pipe, begin, scene, keywords)
        bar.reset(total=job.passes)
        return drive(job.queries, denoise, bar.update)


def _directly(
    pipe: Any, begin: Callable[[Measure], Job[_Result]], scene: Scene, keywords: Mapping[str, Any]
) -> tuple[Job[_Result], Callable[[Query], Tensor]]:
    """The job, begun, and what answers its queries by calling the network."""
    loop, scale = FAMILIES[family(pipe)].direct, scene.guidance_scale
    if isinstance(loop, Loop):
        rehearsal = rehearse(pipe, keywords, loop, guided=scale > 1)
        job = begin(rehearsal.measure)
        return job, RehearsedDenoiser(rehearsal, loop, scale, job.table)
    job = begin(lambda: measured_table(pipe, keywords["num_inference_steps"]))
    return job, DirectDenoiser(pipe, scene.prompts, scene.negative_prompts, scale, job.table, scene.pipe_kwargs)


@contextmanager
def _freeing(pipe: Any) -> Iterator[None]:
    """Gives offloaded networks back in the end, whatever happens: with hooks, the last one stays on its device."""
    try:
        yield
    finally:
        pipe.maybe_free_model_hooks()


def _chosen_driver(pipe: Any, driver: Driver | None, scene: Scene) -> Driver:
    direct = FAMILIES[family(pipe)].direct
    others = sorted(scene.pipe_kwargs.keys() - EMBEDDINGS)
    if driver not in (None, "direct", "pipeline"):
        raise ValueError(f"driver={driver!r} is neither 'direct' nor 'pipeline'")
    if driver == "direct" and not direct:
        raise ValueError(f"driver='direct' does not know {type(pipe).__name__}: leave it out, or pass 'pipeline'")
    if driver == "direct" and others:
        raise ValueError(
            f"driver='direct' reads embeddings of prompts in pipe_kwargs, not {', '.join(others)}: leave it out, "
            "or use 'pipeline'"
        )
    return driver or ("direct" if direct and not others else "pipeline")


def plainly_scheduled(pipe: Any, driver: Driver) -> bool:
    """Whether the steps follow from scheduler and number alone, and not from what the pipeline makes of a size."""
    return driver == "direct" and FAMILIES[family(pipe)].direct == "unet"


def chosen_settings(pipe: Any, preset: str | Settings | None = None, **given: Any) -> Settings:
    """The preset that suits pipe and scheduler, or the one named, with the given values in place of its own."""
    family(pipe)  # refuses what is no pipeline of a kind that is supported
    settings = preset_for(
        type(pipe).__name__, type(pipe.scheduler).__name__, pipe.scheduler.config, preset, few_step=few_step(pipe)
    )
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **changed) if changed else settings


def measured_table(pipe: Any, num_inference_steps: int, strength: float = 1.0) -> StepTable:
    """The steps of the pipeline's scheduler after a plain set_timesteps, without the noisiest below strength 1.

    Pipelines that set their schedule up by the picture's size (FLUX and others) are measured in their own loop instead.
    """
    trained = pipe.scheduler.config.num_train_timesteps
    if num_inference_steps > trained:
        raise ValueError(
            f"num_inference_steps={num_inference_steps} is more than the {trained} noise levels of this model; "
            "50 is usual, 4 for few-step models"
        )
    kept = _kept_steps(num_inference_steps, strength)
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(num_inference_steps)
    return StepTable.measure(scheduler).tail(kept)


def _kept_steps(num_inference_steps: int, strength: float) -> int:
    """How many steps of a schedule a strength leaves: int(num_inference_steps * strength), as in diffusers."""
    if not isinstance(strength, (int, float)) or not 0 < strength <= 1:
        raise ValueError(f"strength={strength!r} is not in (0, 1]; 1 inverts to pure noise, 0.5 half of the way")
    steps = int(num_inference_steps * strength)
    if steps == 0:
        least = math.ceil(1000 / num_inference_steps) / 1000
        raise ValueError(
            f"strength={strength} of num_inference_steps={num_inference_steps} leaves no step; use at least {least}"
        )
    return steps


def _texts(value: str | Sequence[str], count: int, name: str) -> tuple[str, ...]:
    """One text per picture."""
    texts = (value,) * count if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name}={value!r} is not text; pass a str, or a list of {count}")
    if len(texts) != count:
        raise ValueError(f"{len(texts)} texts in {name} for {count} pictures; pass one for all, or one each")
    return tuple(texts)


def _generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, seed: int, count: int
) -> list[torch.Generator]:
    """One generator per picture."""
    if generator is None:
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise ValueError(f"seed={seed!r} is not a whole number from 0 to 2**64 - 1")
        return [torch.Generator().manual_seed(seed) for _ in range(count)]
    generators = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if not all(isinstance(item, torch.Generator) for item in generators):
        raise TypeError(f"generator={generator!r} is not a torch.Generator; for a number, pass seed=")
    if len(generators) != count:
        raise ValueError(
            f"{len(generators)} generators for {count} pictures; pass one each, "
            f"e.g. [torch.Generator().manual_seed(i) for i in range({count})]"
        )
    return cast("list[torch.Generator]", generators)
