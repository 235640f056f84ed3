"""Invert a picture into a pipeline, reconstruct it, edit it with words, keep the result in one file.

This is the layer that users touch: it checks what they hand over, picks settings, and joins the rooms below it,
pixels -> codec -> inversion loop <-> denoiser -> replay -> codec -> pixels.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from renoise import codecs, images, metrics
from renoise.drivers import DirectDenoiser
from renoise.enhance import draw_rolls
from renoise.inversion import Trajectory, count_passes, drive, replay
from renoise.inversion import invert as invert_latents
from renoise.presets import Settings, preset_for
from renoise.schedule import StepTable

__all__ = ["Inversion", "chosen_settings", "invert", "measured_table", "target_size"]


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture (or a batch of B pictures) as the noise from which the pipeline regenerates it.

    Attributes:
        pipe: the pipeline that it was made with; regenerating uses it.
        scheduler: name of the class of the scheduler that it was made with.
        table: the sampler's steps as measured then; regenerating uses them, whatever scheduler the pipeline has now.
        settings: the settings that were used.
        prompts: one per picture.
        negative_prompts: one per picture, or None for the pipeline's default.
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
    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...] | None
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
        scale = self.settings.inversion_guidance_scale
        if guidance_scale is not None:
            scale = replace(self.settings, guidance_scale=guidance_scale).guidance_scale
        return self._pictures(self.regenerate(self.prompts, self.negative_prompts, scale))

    def edit(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        guidance_scale: float | None = None,
    ) -> Any:
        """Regenerates the picture with another prompt.

        Args:
            prompt: what the picture shall show; one for all pictures, or one each.
            negative_prompt: by default that of the inversion; counts only where guidance is on.
            guidance_scale: 1 means no guidance; by default ``settings.guidance_scale``.

        Returns:
            A PIL image, or a list of them where a list was inverted, without the padding.
        """
        count = len(self.pixels)
        prompts = _texts(prompt, count, "prompt")
        negatives = self.negative_prompts
        if negative_prompt is not None:
            negatives = _texts(negative_prompt, count, "negative_prompt")
        settings = self.settings
        if guidance_scale is not None:
            settings = replace(settings, guidance_scale=guidance_scale)
        return self._pictures(self.regenerate(prompts, negatives, settings.guidance_scale))

    @torch.no_grad()
    def regenerate(
        self, prompts: Sequence[str], negative_prompts: Sequence[str] | None, guidance_scale: float
    ) -> Tensor:
        """Replays the sampler from the inverted noise; pixels (B, 3, H, W) in [0, 1], padding included."""
        denoise = DirectDenoiser(self.pipe, prompts, negative_prompts, guidance_scale, self.table)
        with self.pipe.progress_bar(total=len(self.table)) as bar:
            bar.set_description("generate")
            latents = drive(replay(self.table, self.trajectory.z_T, self.trajectory.noises), denoise, bar.update)
        return codecs.decode(self.pipe, latents)

    def round_trip(self) -> Tensor:
        """The picture through the auto-encoder alone, (B, 3, H, W) in [0, 1]: the ceiling of any inversion."""
        return codecs.decode(self.pipe, self.z_0)

    def ceiling(self) -> Tensor:
        """PSNR in dB of the auto-encoder's round trip, per picture (B,)."""
        return metrics.psnr(self.round_trip(), self.pixels)

    def fidelity(self) -> Tensor:
        """PSNR in dB of the reconstruction against the picture, per picture (B,)."""
        scale = self.settings.inversion_guidance_scale
        return metrics.psnr(self.regenerate(self.prompts, self.negative_prompts, scale), self.pixels)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything but the pipeline to one safetensors file (see ``renoise.load``)."""
        from renoise.archive import save

        save(self, path)

    def _pictures(self, pixels: Tensor) -> Any:
        pictures = [images.unfit(picture, box) for picture, box in zip(images.to_pil(pixels), self.boxes, strict=True)]
        return pictures if self.batched else pictures[0]


@torch.no_grad()
def invert(
    pipe: Any,
    image: images.Source | Sequence[images.Source],
    prompt: str | Sequence[str],
    *,
    negative_prompt: str | Sequence[str] | None = None,
    preset: str | Settings | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    inversion_guidance_scale: float | None = None,
    strength: float = 1.0,
    size: int | tuple[int, int] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    seed: int = 0,
) -> Inversion:
    """Finds the noise from which the pipeline regenerates a picture.

    Args:
        pipe: a diffusers pipeline of the Stable Diffusion, Stable Diffusion XL or latent-consistency kind, with a
            scheduler whose steps are affine (DDIM, ancestral Euler, LCM ...); never changed.
        image: path, PIL image or array of any size and mode, or a list of them. Fitted into ``size`` and padded.
        prompt: what the picture shows; one for all pictures, or one each.
        negative_prompt: counts only where guidance is on; by default the pipeline's own.
        preset: a name of ``renoise.presets.PRESETS`` or settings of your own; by default what suits pipe and scheduler.
        num_inference_steps: steps of the whole schedule, N; by default the preset's.
        guidance_scale: of later edits; 1 means no guidance, by default the preset's.
        inversion_guidance_scale: of the inversion; 1 means no guidance, by default the preset's.
        strength: share of the schedule that is walked, in (0, 1]; 1 goes to pure noise.
        size: (height, width) or one number, in pixels; by default the model's own.
        generator: one for each picture, drawing its noise; by default each is seeded with ``seed``, so that a batch
            equals its pictures one by one.
        seed: used where no generator is given, 0 or more.

    Raises:
        ImageError: a picture that cannot be used.
        NotInvertible: a scheduler whose step cannot be reversed; says what to type instead.
        TypeError, ValueError: any other argument that cannot work; says which, why, and what would.
    """
    settings = chosen_settings(pipe, preset, num_inference_steps, guidance_scale, inversion_guidance_scale)
    batched = isinstance(image, (list, tuple))
    sources = list(cast("Sequence[images.Source]", image)) if batched else [cast("images.Source", image)]
    if not sources:
        raise ValueError(f"image={image!r} holds no picture; pass one picture or a list of at least one")
    prompts = _texts(prompt, len(sources), "prompt")
    negatives = None if negative_prompt is None else _texts(negative_prompt, len(sources), "negative_prompt")
    generators = _generators(generator, seed, len(sources))
    target = target_size(pipe, size)
    table = measured_table(pipe, settings.num_inference_steps, strength)
    fitted = [images.fit(images.open_image(source), target) for source in sources]

    started = time.perf_counter()
    denoise = DirectDenoiser(pipe, prompts, negatives, settings.inversion_guidance_scale, table)
    device = pipe._execution_device
    pixels = images.to_tensor([picture for picture, _ in fitted]).to(device)
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

    queries = invert_latents(
        table,
        z_0,
        settings=settings,
        noises=draw(len(table)) if table.stochastic else None,
        forward_noise=draw() if losses else None,
        rolls=rolls if losses else None,
    )
    with pipe.progress_bar(total=count_passes(table, settings)) as bar:
        bar.set_description("invert")
        found = drive(queries, denoise, bar.update)
    # one memory layout, as in a saved file: networks round differently in another
    noises = None if found.noises is None else found.noises.contiguous()
    trajectory = replace(found, z_T=found.z_T.contiguous(), noises=noises)
    return Inversion(
        pipe=pipe,
        scheduler=type(pipe.scheduler).__name__,
        table=table,
        settings=settings,
        prompts=prompts,
        negative_prompts=negatives,
        trajectory=trajectory,
        z_0=z_0,
        pixels=pixels,
        boxes=tuple(box for _, box in fitted),
        seconds=time.perf_counter() - started,
        batched=batched,
    )


def chosen_settings(
    pipe: Any,
    preset: str | Settings | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    inversion_guidance_scale: float | None = None,
) -> Settings:
    """The preset that suits pipe and scheduler, or the one given, with the given values in place of its own."""
    codecs.family(pipe)  # refuses what is no pipeline of a kind that is supported
    settings = preset_for(type(pipe).__name__, type(pipe.scheduler).__name__, pipe.scheduler.config, preset)
    if num_inference_steps is not None:
        settings = replace(settings, num_inference_steps=num_inference_steps)
    if guidance_scale is not None:
        settings = replace(settings, guidance_scale=guidance_scale)
    if inversion_guidance_scale is not None:
        settings = replace(settings, inversion_guidance_scale=inversion_guidance_scale)
    return settings


def measured_table(pipe: Any, num_inference_steps: int, strength: float = 1.0) -> StepTable:
    """The steps that the pipeline's scheduler takes, without the noisiest where ``strength`` is below 1.

    As in diffusers' image-to-image pipelines, int(num_inference_steps * strength) steps stay.
    """
    if not isinstance(strength, (int, float)) or not 0 < strength <= 1:
        raise ValueError(f"strength={strength!r} is not in (0, 1]; 1 inverts to pure noise, 0.5 half of the way")
    trained = pipe.scheduler.config.num_train_timesteps
    if num_inference_steps > trained:
        raise ValueError(
            f"num_inference_steps={num_inference_steps} is more than the {trained} noise levels of this model; "
            "50 is usual, 4 for few-step models"
        )
    steps = int(num_inference_steps * strength)
    if steps == 0:
        least = math.ceil(1000 / num_inference_steps) / 1000
        raise ValueError(
            f"strength={strength} of num_inference_steps={num_inference_steps} leaves no step; use at least {least}"
        )
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(num_inference_steps)
    return StepTable.measure(scheduler).tail(steps)


def target_size(pipe: Any, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) in pixels that the pipeline can work at.

    Raises:
        ValueError: not one or two positive whole numbers, or no multiple of what the networks need.
    """
    factor: int = pipe.vae_scale_factor
    if size is None:
        side = pipe.unet.config.sample_size
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        return height * factor, width * factor
    step = factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    sides = size if isinstance(size, (list, tuple)) else (size, size)
    whole = all(isinstance(side, int) and side > 0 and side % step == 0 for side in sides)
    if len(sides) != 2 or not whole:
        raise ValueError(
            f"size={size!r} does not fit this model: pass one number or (height, width), multiples of {step}, "
            f"e.g. {(8 * step, 8 * step)}"
        )
    return sides[0], sides[1]


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
