"""Queries about several prompts at once: every driver answers each block as if it were asked alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from renoise.core.query import Job, Query
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import EMBEDDINGS
from renoise.pipelines.stand_in import Measure
from renoise.record import Driver, Scene
from tests.helpers import tiny, tiny_flow
from tests.helpers.kinds import FLOW, KINDS, size_of

SOURCE, TARGET = ("a cat", "dogs in the rain"), ("a tree", "the red house")


def scenes_of(pipe: Any, name: str, source: float = 1.0, target: float = 1.0) -> list[Scene]:
    """Two scenes of two pictures each, by texts or, where the tiny pipeline has no text encoder, by embeddings."""
    if name not in FLOW:
        return [Scene(SOURCE, None, source, {}), Scene(TARGET, None, target, {})]
    both = tiny_flow.embeds(pipe, 4, negative=max(source, target) > 1)
    kept = {key: value for key, value in both.items() if key in EMBEDDINGS}
    return [
        Scene(None, None, guidance, {key: value[rows] for key, value in kept.items()})
        for guidance, rows in ((source, slice(0, 2)), (target, slice(2, 4)))
    ]


def answered(pipe: Any, scenes: list[Scene], driver: Driver, asked: list[tuple[int, ...]]) -> list[Tensor]:
    """The answers at step 1 of 3 to queries about these scenes; the block of a scene is always shown the same."""
    adapter = Adapter(pipe)
    calls = [adapter.call(scene, 3, size_of(pipe)) for scene in scenes]
    answers: list[Tensor] = []

    def ask(shape: tuple[int, ...]) -> Generator[Query, Tensor, None]:
        draw = torch.Generator().manual_seed(0)
        blocks = [torch.randn(shape, generator=draw) for _ in range(2)]
        for wanted in asked:
            answers.append((yield Query(torch.cat([blocks[scene] for scene in wanted]), 1, wanted)))

    def begin(measure: Measure) -> Job[None]:
        height, width = size_of(pipe)
        shape = adapter.codec.encode(torch.zeros(2, 3, height, width)).shape
        return Job(ask(tuple(shape)), measure(), sum(map(len, asked)))

    adapter.run(begin, calls, driver=driver, stage="ask")
    return answers


@pytest.mark.parametrize("guidance", [(1.0, 1.0), (2.5, 2.5)], ids=["plain", "guided"])
@pytest.mark.parametrize("driver", ["direct", "pipeline"])
@pytest.mark.parametrize("name", KINDS)
def test_each_block_is_answered_as_if_it_were_asked_alone(
    name: str, driver: Driver, guidance: tuple[float, float]
) -> None:
    pipe = KINDS[name]()
    scenes = scenes_of(pipe, name, *guidance)
    both, swapped, twice, source, target = answered(pipe, scenes, driver, [(0, 1), (1, 0), (0, 0), (0,), (1,)])
    assert not torch.allclose(source, target, rtol=1e-3, atol=1e-3)
    for m in (both, torch.cat((swapped[2:], swapped[:2]))):
        torch.testing.assert_close(m, torch.cat((source, target)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twice, torch.cat((source, source)), rtol=1e-4, atol=1e-4)
    (alone,) = answered(pipe, scenes[:1], driver, [(0,)])
    torch.testing.assert_close(source, alone, rtol=1e-4, atol=1e-4)


def test_two_prompts_are_one_call_of_a_network() -> None:
    pipe, rows = tiny.sdxl(), list[int]()
    pipe.unet.register_forward_hook(lambda *answer: rows.append(len(answer[-1][0])))
    answered(pipe, scenes_of(pipe, "sdxl", 2.0, 2.0), "direct", [(0, 1)])
    assert rows[-1] == 8, "two scenes of two pictures, each guided"


def test_scenes_of_their_own_guidance() -> None:
    """Directly: each block has its own scale, and an unguided scene is no doubled batch."""
    pipe = tiny.sd()
    for scales in ((1.0, 3.0), (2.0, 3.0)):
        both, source, target = answered(pipe, scenes_of(pipe, "sd", *scales), "direct", [(0, 1), (0,), (1,)])
        torch.testing.assert_close(both, torch.cat((source, target)), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="guidance_scale differs between prompts that are asked about together"):
        answered(pipe, scenes_of(pipe, "sd", 2.0, 3.0), "pipeline", [(0, 1)])


def _picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("image", [_picture(0), [_picture(0), _picture(1)]], ids=["one image", "one each"])
def test_control_images_are_doubled(image: Any) -> None:
    pipe = tiny_flow.controlnet()
    scenes = [Scene(prompts, None, 1.0, {"image": image}) for prompts in (SOURCE, TARGET)]
    both, source, target = answered(pipe, scenes, "pipeline", [(0, 1), (0,), (1,)])
    torch.testing.assert_close(both, torch.cat((source, target)), rtol=1e-4, atol=1e-4)
    (alone,) = answered(pipe, scenes[:1], "pipeline", [(0,)])
    torch.testing.assert_close(source, alone, rtol=1e-4, atol=1e-4)


def test_a_control_image_for_each_scene() -> None:
    pipe = tiny_flow.controlnet()
    scenes = [Scene(prompts, None, 1.0, {"image": _picture(k)}) for k, prompts in enumerate((SOURCE, TARGET))]
    (both,) = answered(pipe, scenes, "pipeline", [(0, 1)])
    alone = [answered(pipe, [scene], "pipeline", [(0,)])[0] for scene in scenes]
    torch.testing.assert_close(both[:2], alone[0], rtol=1e-4, atol=1e-4)


def test_what_a_call_has_once_has_to_be_the_same() -> None:
    pipe = tiny_flow.controlnet()
    scenes = [
        Scene(prompts, None, 1.0, {"image": _picture(0), "controlnet_conditioning_scale": scale})
        for prompts, scale in ((SOURCE, 1.0), (TARGET, 0.5))
    ]
    with pytest.raises(ValueError, match="controlnet_conditioning_scale differs between prompts"):
        answered(pipe, scenes, "pipeline", [(0, 1)])


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_a_scene_that_nobody_prepared_is_named(driver: Driver) -> None:
    pipe = tiny.sd()
    with pytest.raises(ValueError, match="a query about scene 1, and 1 is shown"):
        answered(pipe, scenes_of(pipe, "sd")[:1], driver, [(0, 1)])


class _More(Query):
    """A query that wants more than a prediction."""


def test_the_pipelines_loop_answers_plain_queries_only() -> None:
    pipe: Any = tiny.sd()
    adapter = Adapter(pipe)
    call = adapter.call(Scene(("a cat",), None, 1.0, {}), 3, (24, 40))

    def begin(measure: Measure) -> Job[None]:
        def ask() -> Generator[Query, Tensor, None]:
            yield _More(torch.zeros(1, 4, 6, 10), 0)

        return Job(ask(), measure(), 1)

    with pytest.raises(TypeError, match="a _More asks for more than predictions"):
        adapter.run(begin, [call], driver="pipeline", stage="ask")


@pytest.mark.parametrize("asked", [(0, 1), (1, 0)])
def test_scenes_of_another_form_are_asked_one_after_the_other(asked: tuple[int, ...]) -> None:
    """Qwen-Image drops a mask that hides nothing, so one scene has a mask and the other none."""
    pipe = tiny_flow.qwen()
    scenes = scenes_of(pipe, "qwen")
    mask = scenes[0].pipe_kwargs["prompt_embeds_mask"].clone()
    mask[:, -2:] = 0
    full = {**scenes[1].pipe_kwargs, "prompt_embeds_mask": torch.ones_like(mask)}
    partly = {**scenes[0].pipe_kwargs, "prompt_embeds_mask": mask}
    scenes = [replace(scene, pipe_kwargs=given) for scene, given in zip(scenes, (partly, full), strict=True)]
    both, first, second = answered(pipe, scenes, "direct", [asked, asked[:1], asked[1:]])
    torch.testing.assert_close(both, torch.cat((first, second)), rtol=1e-4, atol=1e-4)
