"""Invert a batch of pictures by any method of the benchmark, and generate from the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import renoise
from benchmarks import pictures
from benchmarks.methods import Method
from renoise import Inversion
from renoise.images import to_pil
from renoise.pipelines.adapter import Adapter

__all__ = ["Run", "run"]


@dataclass(frozen=True, eq=False)
class Run:
    """A batch inverted by one method.

    Attributes:
        inversion: the inversion.
        backward: number of backward passes per picture.
        steps: number of steps for generating, if it differs from that of the inversion.
    """

    inversion: Inversion
    backward: int = 0
    steps: int | None = None

    def generate(self, prompts: Sequence[str], guidance_scale: float = 1.0) -> Tensor:
        """Pictures [batch, 3, height, width] in [0, 1], generated with these prompts from the noise that was found.

        Raises:
            ValueError: a picture is not finite.
        """
        scene = replace(self.inversion.scene, prompts=tuple(prompts), guidance_scale=guidance_scale)
        pixels = self.inversion.regenerate(scene, self.steps)
        if not pixels.isfinite().all():
            raise ValueError("the generated picture is not finite")
        return pixels


def run(pipe: Any, chosen: pictures.PictureSet, first: int, method: Method) -> Run:
    """Invert pictures.  Their noise comes from the seeds `first`, `first` + 1 ..., whatever the method."""
    generators = [torch.Generator().manual_seed(first + i) for i in range(len(chosen))]
    steps = method.settings.num_inference_steps
    settings = replace(method.settings, num_inference_steps=method.fine or steps)
    images = to_pil(chosen.pixels)
    inversion = renoise.invert(pipe, images, chosen.captions, preset=settings, generator=generators)
    if method.fine is None:
        return Run(inversion, backward=inversion.passes if method.gradients else 0)
    found = inversion.trajectory
    if found.noises is None:
        return Run(inversion, steps=steps)
    coarse = replace(found, table=Adapter(pipe).schedule(steps), noises=found.noises[:: method.fine // steps])
    return Run(Inversion(replace(inversion.record, trajectory=coarse), pipe))
