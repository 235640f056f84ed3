"""Invert a batch of pictures by any method of the bench, and regenerate it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from renoise.pipelines.direct_unet import DirectDenoiser
from torch import Tensor

import renoise
from benchmarks import pictures
from benchmarks.methods import Method
from benchmarks.rivals import Pullback, with_gradients
from renoise.api import Inversion, Scene, measured_table
from renoise.core.loop import drive
from renoise.core.query import Query
from renoise.images import to_pil
from renoise.pipelines import codecs

__all__ = ["Run", "run"]


@dataclass(frozen=True, eq=False)
class Run:
    """A batch as one method inverted it.

    Attributes:
        inversion: what it found.
        backward: backward passes per picture.
        steps: of the generation, where it is to take other steps than the inversion did.
    """

    inversion: Inversion
    backward: int = 0
    steps: int | None = None

    def generate(self, prompts: Sequence[str], guidance_scale: float = 1.0) -> Tensor:
        """Pictures [batch, 3, height, width] of other prompts from the same noise; raises ValueError on NaN."""
        scene = replace(self.inversion.scene, prompts=tuple(prompts), guidance_scale=guidance_scale)
        pixels = self.inversion.regenerate(scene, self.steps)
        if not pixels.isfinite().all():
            raise ValueError("the generated picture is not finite")
        return pixels


def run(pipe: Any, chosen: pictures.PictureSet, first: int, method: Method) -> Run:
    """Invert pictures that draw their noise from seeds `first`, `first` + 1 ..., whatever the method."""
    generators = [torch.Generator().manual_seed(first + i) for i in range(len(chosen))]
    if method.rival is not None:
        return _by_rival(pipe, chosen, method, generators)
    steps = method.settings.num_inference_steps
    settings = replace(method.settings, num_inference_steps=method.fine or steps)
    images = to_pil(chosen.pixels)
    inversion = renoise.invert(pipe, images, chosen.captions, preset=settings, generator=generators)
    noises = inversion.trajectory.noises
    if method.fine is None:
        return Run(inversion)
    if noises is None:
        return Run(inversion, steps=steps)
    coarse = replace(inversion.trajectory, noises=noises[:: method.fine // steps])
    return Run(replace(inversion, table=measured_table(pipe, steps), trajectory=coarse))


def _by_rival(pipe: Any, chosen: pictures.PictureSet, method: Method, generators: Sequence[torch.Generator]) -> Run:
    """What `renoise.invert` does, with a rival in place of the library's loop."""
    assert method.rival is not None
    started = time.perf_counter()
    table = measured_table(pipe, method.settings.num_inference_steps)
    z_0 = codecs.encode(pipe, chosen.pixels).contiguous()
    shape = (len(table), *z_0.shape[1:])
    noises = torch.stack([torch.randn(shape, generator=g) for g in generators], 1) if table.stochastic else None
    direct = DirectDenoiser(pipe, chosen.captions, None, 1.0, table)
    backward = 0

    def through(query: Query) -> Tensor:
        m: Tensor = inspect.unwrap(DirectDenoiser.__call__)(direct, query)  # without its no_grad
        return m

    answer = with_gradients(through) if method.gradients else direct

    def denoise(query: Query) -> Tensor:
        nonlocal backward
        backward += isinstance(query, Pullback)
        return answer(query)

    trajectory = drive(method.rival(table, z_0, noises), denoise)
    inversion = Inversion(
        pipe=pipe,
        scheduler=type(pipe.scheduler).__name__,
        table=table,
        settings=method.settings,
        scene=Scene(tuple(chosen.captions), None, 1.0, {}),
        driver="direct",
        trajectory=trajectory,
        z_0=z_0,
        pixels=chosen.pixels,
        boxes=((0, 0, *chosen.pixels.shape[:1:-1]),) * len(chosen),
        seconds=time.perf_counter() - started,
        batched=True,
    )
    return Run(inversion, backward)
