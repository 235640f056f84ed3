"""What the editing benchmark compares: ways to turn pictures and prompts into edited pictures.

A method is given a `Batch` and returns edited pixels with the passes that they took.  Inversions are made once and
kept, since several methods edit along the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import renoise
from renoise import images
from renoise.core.draws import white_noise
from renoise.core.editing import Controls, displace, renoised
from renoise.core.loop import replay
from renoise.core.query import Job
from renoise.core.settings import Settings, plain
from renoise.core.table import StepTable
from renoise.pipelines.adapter import Adapter
from renoise.presets import PRESETS
from renoise.record import Scene

__all__ = ["SAMPLERS", "Batch", "EditMethod", "Sampler", "edit_methods"]


@dataclass(frozen=True)
class Sampler:
    """A model with its settings.

    Attributes:
        model: name of an embedded model.
        default: settings of the library for it.
        paper: the published method with the same number of steps.
    """

    model: str
    default: Settings
    paper: Settings


def _many(preset: str) -> Settings:
    return replace(PRESETS[preset].settings, num_inference_steps=20, guidance_scale=4.0, passes=None)


SAMPLERS = {
    "ancestral Euler, 4 steps": Sampler(
        "emoji-turbo", PRESETS["few-step"].settings, PRESETS["paper-sdxl-turbo"].settings
    ),
    "DDIM, 20 steps, guidance 4": Sampler("emoji", replace(_many("many-step"), passes=21), _many("paper-sd")),
}


@dataclass(eq=False)
class Batch:
    """Some pictures with the new prompts of one kind of edit.

    Attributes:
        pipe: the pipeline.
        sampler: its settings.
        pixels: [batch, 3, height, width] in [0, 1].
        source_prompts, prompts: one per picture.
        seed: of all noise.
        inversions: made so far, by name; shared between the kinds of edits of the same pictures.
    """

    pipe: Any
    sampler: Sampler
    pixels: Tensor
    source_prompts: list[str]
    prompts: list[str]
    seed: int
    inversions: dict[str, renoise.Inversion] = field(default_factory=dict)

    def inverted(self, name: str, settings: Settings) -> renoise.Inversion:
        """The inversion of this name, with the latents of every step."""
        if name not in self.inversions:
            self.inversions[name] = renoise.invert(
                self.pipe,
                images.to_pil(self.pixels),
                self.source_prompts,
                preset=settings,
                seed=self.seed,
                keep_latents=True,
                progress=renoise.Progress(),
            )
        return self.inversions[name]


Made = tuple[Tensor, int]


@dataclass(frozen=True)
class EditMethod:
    """One row of the table.

    Attributes:
        name: of the method.
        family: methods of a family are drawn as one line.
        make: edited pixels [batch, 3, height, width] of a batch, and the passes per picture, inversion included.
    """

    name: str
    family: str
    make: Callable[[Batch], Made]


def edit_methods(sampler: Sampler) -> list[EditMethod]:
    """Every method to compare, the default swap first."""
    default, steps = sampler.default, sampler.default.num_inference_steps
    few_step = steps < 10
    swaps = {
        "swap, default preset": default,
        "swap, plain reversal": plain(default),
        "swap, published ReNoise": sampler.paper,
    }
    if few_step:
        swaps["swap, preset fast"] = PRESETS["fast"].settings
    methods = [EditMethod(name, "prompt swap", _inverted(name, settings)) for name, settings in swaps.items()]
    for strength in (0.5, 0.75, 1.0) if few_step else (0.5, 0.75):
        methods.append(EditMethod(f"SDEdit {strength:g}", "SDEdit", _sdedit(round(steps * strength))))
    for w in (0.0, 1.0) if few_step else (0.0,):
        methods.append(EditMethod(f"edit-friendly, w {w:g}", "edit-friendly", _drawn(Controls(source_guidance=w))))
    smooth = Controls(motion="smooth")
    methods.append(EditMethod("FlowEdit form", "FlowEdit form", _drawn(smooth)))
    if not few_step:
        start = replace(smooth, first_step=steps // 4)
        methods.append(EditMethod("FlowEdit form, source guidance 2", "FlowEdit form", _drawn(start, guidance=2.0)))
    for dial in ("balanced", "faithful"):
        found = _inverted("swap, default preset", default, preserve=dial)
        methods.append(EditMethod(f"{dial}, inverted", "ours, inverted", found))
    for dial in ("balanced", "faithful"):
        methods.append(EditMethod(f"{dial}, drawn", "ours, drawn", _without_inversion(dial)))
    automatic = _inverted("swap, default preset", default, preserve="balanced", mask="auto")
    methods.append(EditMethod("balanced, automatic mask", "ours, inverted", automatic))
    for share in (0.5, 0.8):
        methods.append(EditMethod(f"default swap, faded {share:g}", "fading (null)", _faded(default, share)))
    return methods


def _inverted(name: str, settings: Settings, **controls: Any) -> Callable[[Batch], Made]:
    """An edit along the inversion of this name."""

    def make(batch: Batch) -> Made:
        inversion = batch.inverted(name, settings)
        edited = inversion.edit(batch.prompts, progress=renoise.Progress(), **controls)
        return _pixels(edited), inversion.passes + edited[0].passes

    return make


def _without_inversion(dial: str) -> Callable[[Batch], Made]:
    def make(batch: Batch) -> Made:
        edited = renoise.edit(
            batch.pipe,
            images.to_pil(batch.pixels),
            batch.source_prompts,
            batch.prompts,
            preset=batch.sampler.default,
            preserve=dial,
            seed=batch.seed,
            progress=renoise.Progress(),
        )
        return _pixels(edited), edited[0].passes

    return make


def _faded(settings: Settings, share: float) -> Callable[[Batch], Made]:
    """The default swap mixed with its source, pixel by pixel: what any gate has to beat."""

    def make(batch: Batch) -> Made:
        edited, passes = _inverted("swap, default preset", settings)(batch)
        source = batch.inverted("swap, default preset", settings).round_trip()
        return (1 - share) * edited + share * source, passes

    return make


def _drawn(controls: Controls, guidance: float = 1.0) -> Callable[[Batch], Made]:
    """The displacement loop along drawn source latents."""

    def begin(table: StepTable, z_0: Tensor, fresh: Tensor) -> Any:
        return displace(table, renoised(table, z_0, fresh), controls)

    def make(batch: Batch) -> Made:
        found = _asked(batch, begin, guidance)
        return _decoded(batch, found.latents), found.passes

    return make


def _sdedit(steps: int) -> Callable[[Batch], Made]:
    """The picture noised to an inner level, and drawn from there under the new prompt (Meng et al., ICLR 2022)."""

    def begin(table: StepTable, z_0: Tensor, fresh: Tensor) -> Any:
        tail = table.tail(steps)
        return _shifted(replay(tail, tail.noisy(0, z_0, fresh[0]), fresh[1 : 1 + steps]), len(table) - steps)

    def make(batch: Batch) -> Made:
        return _decoded(batch, _asked(batch, begin, 1.0)), steps

    return make


def _shifted(queries: Any, by: int) -> Any:
    """Queries about the last steps of a longer table."""
    try:
        query = next(queries)
        while True:
            query = queries.send((yield replace(query, step=query.step + by)))
    except StopIteration as stop:
        return stop.value


def _asked(batch: Batch, begin: Callable[[StepTable, Tensor, Tensor], Any], source_guidance: float) -> Any:
    """Has the pipeline answer queries about the new prompts and the old ones."""
    adapter, settings = Adapter(batch.pipe), batch.sampler.default
    steps, count = settings.num_inference_steps, len(batch.pixels)
    height, width = batch.pixels.shape[-2:]
    z_0 = adapter.codec.encode(batch.pixels)
    generators = [torch.Generator().manual_seed(batch.seed) for _ in range(count)]
    fresh = white_noise(generators, z_0.shape[1:], steps=2 * steps, device=z_0.device)
    scenes = [
        Scene(tuple(texts), None, guidance, {})
        for texts, guidance in ((batch.prompts, settings.guidance_scale), (batch.source_prompts, source_guidance))
    ]
    calls = [adapter.call(scene, steps, (height, width), count) for scene in scenes]
    table = adapter.schedule(steps)
    return adapter.run(
        lambda _: Job(begin(table, z_0, fresh), table, steps),
        calls,
        driver="direct",
        stage="generate",
        steps=table,
        progress=renoise.Progress(),
    )


def _decoded(batch: Batch, latents: Tensor) -> Tensor:
    height, width = batch.pixels.shape[-2:]
    return Adapter(batch.pipe).codec.decode(latents, (height, width))


def _pixels(edited: list[renoise.Edited]) -> Tensor:
    return images.to_tensor([picture.copy() for picture in edited])
