"""Edits with controls through every kind of pipeline and both drivers: passes, kept latents, batches, masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import renoise
from renoise.core.settings import Region, Settings
from tests.helpers import tiny, tiny_flow
from tests.helpers.kinds import FLOW, KINDS, another, embeddings, inverted, pictures, scene, settings, size_of


def often(names: tuple[str, ...], name: str, *more: Any) -> Any:
    """A case that is always run for some kinds, and for the others with the slow tests."""
    return pytest.param(name, *more, marks=[] if name in names else pytest.mark.slow)


CASES = [often(("sdxl", "flux", "z_image"), name, driver) for name in KINDS for driver in ("direct", "pipeline")]
CONTROLS: dict[str, Any] = {"preserve": 0.5, "source_guidance": 1.0}
STEPS = 3


def target(inversion: renoise.Inversion) -> dict[str, Any]:
    """Keywords of an edit in which the two pictures exchange their prompts."""
    other = another(inversion.scene)
    return {"prompt": other.prompts and list(other.prompts), "pipe_kwargs": dict(other.pipe_kwargs)}


def numbers(results: Any) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(result, dtype=float) for result in results])


def latents(results: Any) -> torch.Tensor:
    return torch.cat([result.latents for result in results])


class Passes:
    """Counts what a progress is told."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}
        self.progress = renoise.Progress(self._tell)

    def _tell(self, progress: renoise.Progress) -> None:
        assert progress.passes <= progress.total
        self.stages[progress.stage] = progress.passes


def half(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    mask = np.zeros(size, dtype=bool)
    mask[:, : size[1] // 2] = True
    return mask


@pytest.mark.parametrize(("name", "driver"), CASES)
def test_every_kind_and_driver(name: str, driver: Any) -> None:
    """Both rows of a batch, with a mask: passes as counted, and nothing changes beyond the mask, in the latents too."""
    pipe = KINDS[name]()
    inversion = inverted(pipe, settings(STEPS, 2), driver=driver, keep_latents=True)
    counted = Passes()
    size = size_of(pipe)
    edits = inversion.edit(**target(inversion), mask=half(size), mask_feather=0, **CONTROLS, progress=counted.progress)
    passes = STEPS + STEPS - 1
    assert [edit.passes for edit in edits] == [passes] * 2
    assert counted.stages == {"generate": passes}
    original = np.stack([np.asarray(picture) for picture in pictures(size)])
    assert np.array_equal(numbers(edits)[:, ~half(size)], original[:, ~half(size)])
    assert (numbers(edits)[:, half(size)] != original[:, half(size)]).mean() > 0.5
    layout = renoise.pipelines.adapter.Adapter(pipe).codec.layout(size)
    before, after = layout.to_maps(inversion.z_0), layout.to_maps(latents(edits))
    middle = before.shape[-1] // 2
    assert torch.equal(after[..., middle:], before[..., middle:])
    assert (after[..., :middle] != before[..., :middle]).any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize("name", [often(("sd",), name) for name in ("sd", "sd3", "flux")])
def test_passes_are_rows_of_the_network(name: str) -> None:
    pipe = KINDS[name]()
    inversion = inverted(pipe, settings(STEPS, 1), driver="direct", keep_latents=True)
    network, rows = getattr(pipe, "unet", None) or pipe.transformer, list[int]()

    def count(_: Any, args: Any, kwargs: Any) -> None:
        rows.append(len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))))

    inversion.edit(**target(inversion))  # the rehearsal takes an evaluation of its own
    for controls in ({}, {"preserve": 0.5}, {"preserve": 0.5, "source_guidance": 0.0}, {"randomness": 1.0}):
        rows.clear()
        with network.register_forward_pre_hook(count, with_kwargs=True):
            edits = inversion.edit(**target(inversion), **controls)  # type: ignore[arg-type]
        assert sum(rows) // 2 - edits[0].passes in range(3), rows  # a rehearsal of each scene may run the network


@pytest.mark.parametrize("name", [often(("sd3",), name) for name in KINDS])
def test_latents_that_were_not_kept_are_found_by_a_walk(name: str) -> None:
    """Where the inversion is exact; the walk is taken once."""
    pipe = KINDS[name]()
    network = getattr(pipe, "unet", None) or pipe.transformer
    with torch.no_grad():  # until renoising converges
        for weight in network.parameters() if name in FLOW else [network.conv_out.weight]:
            weight *= 0.8 if name in FLOW else 0.1
    exact = Settings((Region(iterations=12),), num_inference_steps=STEPS, correction=float("inf"))
    if name in FLOW:
        exact = replace(exact, correction=0.0)
    kept = inverted(pipe, exact, keep_latents=True)
    record = replace(kept.record, trajectory=replace(kept.trajectory, step_latents=None))
    walked, counted = renoise.Inversion(record, pipe), Passes()
    one = kept.edit(**target(kept), **CONTROLS)
    two = walked.edit(**target(kept), **CONTROLS, progress=counted.progress)
    torch.testing.assert_close(latents(two), latents(one), rtol=0, atol=2e-2)
    assert counted.stages == {"walk": STEPS - 1, "generate": 2 * STEPS - 1}
    assert [edit.passes for edit in two] == [one[0].passes + STEPS - 1] * 2
    assert walked.edit(**target(kept), **CONTROLS)[0].passes == one[0].passes
    assert record.trajectory.step_latents is None


@pytest.mark.parametrize("name", [often(("flux",), name) for name in ("sdxl", "lcm", "flux")])
def test_a_batch_equals_its_pictures_one_by_one(name: str) -> None:
    pipe = KINDS[name]()
    size = size_of(pipe)
    masks = [half(size), ~half(size)]
    controls: dict[str, Any] = {**CONTROLS, "randomness": 0.5, "seed": 3, "strength": 0.7}
    both = inverted(pipe, settings(STEPS, 2), keep_latents=True)
    together = both.edit(**target(both), mask=masks, **controls)
    automatic = both.edit(**target(both), mask="auto", **controls)
    for row, picture in enumerate(pictures(size)):
        own = both._editable.row(row).scene
        given: dict[str, Any] = {"prompt": own.prompts and own.prompts[0], "pipe_kwargs": dict(own.pipe_kwargs)}
        alone = renoise.invert(pipe, picture, preset=settings(STEPS, 2), size=size, keep_latents=True, **given)
        other = replace(both._editable, scene=another(both.scene)).row(row).scene
        asked: dict[str, Any] = {"prompt": other.prompts and other.prompts[0], "pipe_kwargs": dict(other.pipe_kwargs)}
        one = alone.edit(**asked, mask=masks[row], **controls)
        torch.testing.assert_close(one.latents, together[row].latents, rtol=1e-3, atol=1e-3)
        assert torch.equal(one.mask, together[row].mask)
        assert np.abs(np.asarray(one, dtype=float) - np.asarray(together[row], dtype=float)).max() <= 1
        one = alone.edit(**asked, mask="auto", **controls)
        assert torch.equal(one.mask, automatic[row].mask)


@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_guidance_and_a_negative_prompt(driver: Any) -> None:
    """With guidance the source is asked about with its own, so both can be asked at once only where they agree."""
    pipe = tiny.sdxl()
    inversion = inverted(pipe, settings(STEPS, 1, 2.0), driver=driver, keep_latents=True)
    edits = [
        inversion.edit(["a dog", "a cat"], preserve=0.4, **more)
        for more in ({}, {"guidance_scale": 4.0}, {"negative_prompt": "rain"}, {"negative_prompt": ["a cat", "snow"]})
    ]
    assert [edit[0].passes for edit in edits] == [STEPS] * 4  # guided, so no guidance away from the source
    assert len({edit[0].tobytes() for edit in edits}) == 4


@pytest.mark.parametrize("prompt", ["a dog", ["a dog", "a cat"]])
def test_a_controlnet_goes_by_the_pipelines_own_loop(prompt: Any) -> None:
    pipe = tiny_flow.controlnet()
    size = size_of(pipe)
    control = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    inversion = inverted(pipe, settings(STEPS, 1), prompt=["a", "b"], pipe_kwargs={"image": control})
    edits = inversion.edit(prompt, preserve=0.5, mask=half(size), randomness=0.5)
    assert edits[0].passes == STEPS - 1 + 2 * STEPS + STEPS - 1
    other = inversion.edit(prompt, preserve=0.5, pipe_kwargs={"image": 1 - control}, randomness=0)
    assert other[0].tobytes() != inversion.edit(prompt, preserve=0.5)[0].tobytes()
    assert edits[0].edit("rain", preserve=0.5).passes == 2 * STEPS + STEPS - 1


@pytest.mark.parametrize(
    ("source", "edit"), [(1.0, 3.0), (3.0, 1.0)], ids=["guided edit of a plain inversion", "the other way round"]
)
def test_a_pipelines_own_loop_says_why_it_cannot_ask_with_two_guidance_scales(source: float, edit: float) -> None:
    pipe = tiny.sdxl()
    inversion = inverted(pipe, settings(STEPS, 1), driver="pipeline", inversion_guidance_scale=source)
    with pytest.raises(ValueError, match=f"one guidance for both. Pass guidance_scale={source:g}"):
        inversion.edit("a dog", guidance_scale=edit, preserve=0.5, source_guidance=1.0)
    assert pipe("a cat", num_inference_steps=1, output_type="pt").images.isfinite().all()  # nothing is left behind
    assert inverted(pipe, settings(STEPS, 1), driver="direct", inversion_guidance_scale=source).edit(
        "a dog", guidance_scale=edit, preserve=0.5, source_guidance=1.0
    )


def test_embeddings_in_place_of_prompts_without_inversion() -> None:
    pipe = tiny_flow.flux()
    size, given = size_of(pipe), embeddings(pipe)
    options: dict[str, Any] = {"preset": settings(STEPS), "size": size}
    with pytest.raises(ValueError, match="no prompt: pass prompt="):
        renoise.edit(pipe, pictures(size), None, None, **options)
    same = renoise.edit(pipe, pictures(size), None, None, pipe_kwargs=given, **options)
    assert [edit.passes for edit in same] == [0, 0]


def test_the_scene_of_the_tiny_pipelines_differs_between_its_pictures() -> None:
    """Or nothing above would change."""
    pipe = tiny_flow.sd3()
    rows = scene(pipe, 1.0)["pipe_kwargs"]["prompt_embeds"]
    assert not torch.equal(rows[0], rows[1])
