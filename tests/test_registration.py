"""Rows for pipelines of one's own: right ones are taken, wrong ones are refused with what is wrong."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diffusers import PNDMScheduler, StableDiffusionPipeline
from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks

import renoise
from renoise.pipelines.families import FAMILIES, family
from renoise.registration import FamilyReport
from tests.helpers import tiny

SD = FAMILIES["sd"]
ROW = replace(SD, pipelines=("Mine",))


class Mine(StableDiffusionPipeline):  # type: ignore[misc]
    """A pipeline of one's own that extends one of diffusers."""


class Counting(Mine):
    """Whose answers grow from round to round of its loop."""

    @functools.wraps(Mine.__call__)
    def __call__(self, *positional: Any, **named: Any) -> Any:
        rounds: list[int] = []

        def grown(module: Any, inputs: Any, answer: Any) -> Any:
            rounds.append(1)
            return (answer[0] * (1 + 0.1 * len(rounds)), *answer[1:])

        hook = self.unet.register_forward_hook(grown)
        try:
            return super().__call__(*positional, **named)
        finally:
            hook.remove()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = dict(FAMILIES)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


def mine(kind: Any = Mine, **parts: Any) -> Any:
    pipe = tiny.sd(tiny.ddim(), **{"vae": tiny.vae(scaling_factor=4.0), **parts})
    pipe.__class__ = kind
    return pipe


def wrong(row: renoise.Family, pipe: Any, **given: Any) -> FamilyReport:
    with pytest.raises(renoise.FamilyError, match="is not registered") as caught:
        renoise.register_family("mine", row, pipe, "a cat", **given)
    assert "mine" not in FAMILIES
    return caught.value.report


def test_a_right_row_is_taken_and_used() -> None:
    pipe = mine()
    assert family(pipe) == "sd"
    report = renoise.register_family("mine", ROW, pipe, "a cat", size=(32, 48))
    assert family(pipe) == "mine"
    assert family(tiny.sd()) == "sd"
    assert not any(check.wrong for check in report.checks)
    assert len(str(report).splitlines()) == len(report.checks) == 10
    without = renoise.register_family("mine", replace(ROW, direct=None), pipe, "a cat", size=32, guidance_scale=1.0)
    assert "direct" not in str(without)
    assert FAMILIES["mine"].direct is None  # replaced
    assert renoise.invert(pipe, renoise.models.EXAMPLE, "a cat", num_inference_steps=2, size=32).passes == 3


def test_the_wrong_scaling_of_latents_is_noticed() -> None:
    report = wrong(replace(ROW, statistics="shift"), mine(vae=tiny.vae(scaling_factor=4.0, shift_factor=0.8)))
    assert [check.name for check in report.checks if check.wrong] == ["decoding"]
    assert "see statistics=" in str(report)


def test_a_wrong_guidance_of_the_direct_driver_is_noticed() -> None:
    assert SD.direct is not None
    swapped = replace(SD.direct, guide=lambda u, c, scale: c + scale * (u - c))
    report = wrong(replace(ROW, direct=swapped), mine())
    assert [check.name for check in report.checks if check.wrong] == ["drivers at guidance 2"]


def test_a_loop_that_counts_its_rounds_is_noticed() -> None:
    report = wrong(replace(ROW, direct=None), mine(Counting))
    assert {"generation at guidance 1", "generation at guidance 2"} <= {c.name for c in report.checks if c.wrong}
    assert "does its loop count rounds" in str(report)


def test_what_a_row_asks_for_and_a_call_does_not_take_is_named() -> None:
    report = wrong(replace(ROW, guidance=lambda pipe, scale: {"weight": scale}, keywords={"nonsense": 1}), mine())
    assert str(report).startswith("WRONG form: its call takes no nonsense, weight: see guidance=")
    other = replace(ROW, pipelines=("Other",))
    assert "does not name the class of this pipeline, Mine" in str(wrong(other, mine()))
    pipe = mine()
    del pipe.vae_scale_factor
    assert "Mine has no vae_scale_factor" in str(wrong(ROW, pipe))


def test_a_sampler_that_cannot_be_inverted_is_named_with_what_to_use() -> None:
    pipe = mine()
    pipe.scheduler = PNDMScheduler(**tiny.TRAINING, skip_prk_steps=True)
    assert "Use instead: pipe.scheduler = DDIMScheduler" in str(wrong(ROW, pipe))


def test_names_and_rows() -> None:
    with pytest.raises(ValueError, match="'sd' cannot be the name of a kind"):
        renoise.register_family("sd", ROW, mine())
    with pytest.raises(ValueError, match="StableDiffusionPipeline has a row already"):
        renoise.register_family("mine", SD, mine())
    with pytest.raises(TypeError, match=r"a row is a renoise.Family, not a dict"):
        renoise.register_family("mine", {}, mine())  # type: ignore[arg-type]


def modular_sdxl() -> Any:
    """A modular pipeline of diffusers in the wrapper that docs/your-own-pipeline.md shows."""
    page = (Path(__file__).parents[1] / "docs/your-own-pipeline.md").read_text()
    code = next(block for block in re.findall(r"^```python.*?\n(.*?)^```", page, re.M | re.S) if "ModularSDXL" in block)
    shown: dict[str, Any] = {}
    exec(code, shown)
    base = tiny.sdxl(tiny.ddim(), vae=tiny.vae(scaling_factor=4.0, force_upcast=False))
    modular = StableDiffusionXLAutoBlocks().init_pipeline()
    names = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
    modular.update_components(**{name: getattr(base, name) for name in names})
    return shown["ModularSDXL"](modular)


def test_a_modular_pipeline_is_registered_as_the_page_says() -> None:
    pipe = modular_sdxl()
    row = replace(FAMILIES["sdxl"], pipelines=("ModularSDXL",), direct=None)
    report = renoise.register_family("modular-sdxl", row, pipe, "a cat", size=(32, 48))
    assert not any(check.wrong for check in report.checks)
    assert renoise.invert(pipe, renoise.models.EXAMPLE, "a cat", num_inference_steps=2, size=32).passes == 3
