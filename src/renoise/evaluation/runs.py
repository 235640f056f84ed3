"""Invert a batch of pictures by any method, and generate from the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from renoise.api import invert
from renoise.evaluation.methods import Method
from renoise.images import Source
from renoise.inverted import Inversion
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

    def reconstruct(self) -> Tensor:
        """The pictures again [batch, 3, height, width] in [0, 1], with the prompts and the guidance of the inversion.

        Raises:
            ValueError: a picture is not finite.
        """
        scene = self.inversion.scene
        return self.generate(scene.prompts or (), scene.guidance_scale)

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


def run(
    pipe: Any,
    images: Sequence[Source],
    prompts: Sequence[str],
    seeds: Sequence[int],
    method: Method,
    *,
    size: int | tuple[int, int] | None = None,
) -> Run:
    """Invert pictures.  Each draws its noise from its own seed, whatever the method.

    Args:
        pipe: a pipeline, as for `renoise.invert`.
        images: the pictures, as for `renoise.invert`.
        prompts: what each of them shows.
        seeds: the seed of each.
        method: how to invert.
        size: (height, width) or one number, in pixels; by default the model's own.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    steps = method.settings.num_inference_steps
    settings = replace(method.settings, num_inference_steps=method.fine or steps)
    inversion = invert(pipe, list(images), list(prompts), preset=settings, generator=generators, size=size)
    if method.fine is None:
        return Run(inversion, backward=inversion.passes if method.gradients else 0)
    found = inversion.trajectory
    if found.noises is None:
        return Run(inversion, steps=steps)
    coarse = replace(found, table=Adapter(pipe).schedule(steps), noises=found.noises[:: method.fine // steps])
    return Run(Inversion(replace(inversion.record, trajectory=coarse), pipe))
