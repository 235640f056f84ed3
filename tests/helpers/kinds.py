"""Tiny pipelines of every kind, two pictures for them, and a spy on what stock pipelines compute."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

import renoise
from renoise.core.settings import Region, Settings
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import EMBEDDINGS, FAMILIES, family
from renoise.record import Scene
from tests.helpers import tiny, tiny_flow

FLOW: dict[str, Callable[..., Any]] = {
    name: getattr(tiny_flow, name) for name in ("sd3", "flux", "flux2", "z_image", "qwen", "sana")
}
UNETS: dict[str, Callable[..., Any]] = {"sd": tiny.sd, "sdxl": tiny.sdxl, "lcm": tiny.lcm}
KINDS = UNETS | FLOW


def settings(steps: int = 4, iterations: int = 2, guidance: float = 1.0) -> Settings:
    return Settings(
        (Region(iterations=iterations),),
        num_inference_steps=steps,
        guidance_scale=guidance,
        inversion_guidance_scale=guidance,
    )


def embeddings(pipe: Any, guidance: float = 1.0) -> dict[str, Any]:
    """Of two prompts, with negative ones under guidance."""
    keywords = tiny_flow.embeds(pipe, 2, negative=guidance > 1)
    return {key: value for key, value in keywords.items() if key in EMBEDDINGS}


def scene(pipe: Any, guidance: float) -> dict[str, Any]:
    """Two prompts: as texts, or where the tiny pipeline has no text encoder as embeddings."""
    if family(pipe) in ("sd", "sdxl", "lcm"):
        return {"prompt": ["a cat", "dogs in the rain"]}
    return {"prompt": None, "pipe_kwargs": embeddings(pipe, guidance)}


def another(scene: Scene) -> Scene:
    """The prompts the other way round."""
    swapped = {
        key: value.flip(0) if isinstance(value, Tensor) else value[::-1] for key, value in scene.pipe_kwargs.items()
    }
    return replace(scene, prompts=scene.prompts and scene.prompts[::-1], pipe_kwargs=swapped)


def size_of(pipe: Any) -> tuple[int, int]:
    """Not square, and the smallest that every network takes."""
    patch = pipe.vae_scale_factor * max(2, FAMILIES[family(pipe)].patch)
    return 4 * patch, 6 * patch


def pictures(size: tuple[int, int]) -> list[Image.Image]:
    """Two smooth ones."""
    height, width = size
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.stack([np.sin(3 * x + k), np.cos(4 * y - k), x * y], -1) for k in (0, 2)]
    return [Image.fromarray((127 * np.clip(wave, -1, 1) + 128).astype(np.uint8)) for wave in waves]


def inverted(pipe: Any, wanted: Settings, **arguments: Any) -> renoise.Inversion:
    given = {**scene(pipe, wanted.guidance_scale), **arguments}
    return renoise.invert(pipe, pictures(size_of(pipe)), preset=wanted, size=size_of(pipe), **given)


class Spy:
    """Records what a pipeline's own scheduler is handed while it is open."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.latents, self.predictions, self.results = list[Tensor](), list[Tensor](), list[Tensor]()

    def __enter__(self) -> Spy:
        self.kept, spying = self.pipe.scheduler, copy.deepcopy(self.pipe.scheduler)
        kind, spy = type(spying), self

        class Spying(kind):  # type: ignore[misc, valid-type]
            @functools.wraps(kind.step)  # pipelines read the signature
            def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **options: Any) -> Any:
                answer = super().step(model_output, timestep, sample, *rest, **options)
                spy.latents.append(sample.clone())
                spy.predictions.append(model_output.clone())
                spy.results.append(answer[0].clone())
                return answer

        spying.__class__ = Spying
        self.pipe.scheduler = spying
        return self

    def __exit__(self, *error: object) -> None:
        self.pipe.scheduler = self.kept


def call_keywords(
    pipe: Any, prompts: tuple[str, ...] | None, guidance: float, extra: Mapping[str, Any], size: tuple[int, int]
) -> dict[str, Any]:
    """Of a call that shows two pictures in three steps."""
    adapter = Adapter(pipe)
    return dict(adapter.call(Scene(prompts, None, guidance, extra), 3, size).keywords)
