"""renoise.edit: editing without inversion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import renoise
from renoise import images
from renoise.core.settings import Region, Settings
from tests.helpers import tiny, tiny_flow
from tests.helpers.hostile import NetworkRanError
from tests.helpers.hostile_calls import untouchable
from tests.helpers.kinds import pictures

STEPS = 3
SETTINGS = Settings((Region(iterations=0),), num_inference_steps=STEPS)
PICTURES = pictures((32, 32))
HALF = np.arange(32)[None].repeat(32, 0) < 16


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.sd(tiny.euler_ancestral())


def edited(pipe: Any, *arguments: Any, **more: Any) -> Any:
    given = arguments or ("a cat", "a dog")
    return renoise.edit(pipe, more.pop("image", PICTURES[0]), *given, preset=SETTINGS, **more)


def moved(one: renoise.Edited, two: renoise.Edited) -> float:
    return float((one.latents - two.latents).abs().mean())


def test_two_passes_a_step_and_no_inversion(pipe: Any) -> None:
    told: list[tuple[str, int, int]] = []
    progress = renoise.Progress(lambda p: told.append((p.stage, p.passes, p.total)))
    result = edited(pipe, progress=progress)
    assert isinstance(result, renoise.Edited)
    assert (result.size, result.prompt, result.passes) == ((32, 32), "a dog", 2 * STEPS)
    assert told == [("generate", passes, 2 * STEPS) for passes in range(0, 2 * STEPS + 1, 2)]
    assert edited(pipe, preserve=0.5).passes == 2 * STEPS + STEPS - 1


@pytest.mark.parametrize(
    "make",
    [tiny.sd, *(pytest.param(make, marks=pytest.mark.slow) for make in (tiny.sdxl, tiny.lcm, tiny_flow.sd3))],
    ids=["sd", "sdxl", "lcm", "sd3"],
)
@pytest.mark.parametrize("driver", ["direct", "pipeline"])
def test_the_source_prompt_gives_the_picture_back(make: Any, driver: Any) -> None:
    pipe = make()
    same = edited(pipe, "a cat", "a cat", preserve=0.3, size=32, driver=driver)
    other = edited(pipe, preserve=0.3, size=32, driver=driver)
    assert (same.passes, other.passes) == (0, 3 * STEPS - 1)
    inversion = renoise.invert(pipe, PICTURES[0], "a cat", preset=SETTINGS, size=32)
    assert torch.equal(same.latents, inversion.z_0)
    assert same.tobytes() == images.to_pil(inversion.round_trip())[0].tobytes()
    assert moved(other, same) > 0


def test_both_drivers_edit_alike() -> None:
    pipe = tiny.sdxl()
    one, two = (edited(pipe, preserve=0.3, driver=driver) for driver in ("direct", "pipeline"))
    torch.testing.assert_close(one.latents, two.latents, rtol=1e-4, atol=1e-4)


def test_a_batch_equals_its_pictures_one_by_one(pipe: Any) -> None:
    sources, targets = ["a cat", "dogs"], ["rain", "a dog"]
    together = edited(pipe, sources, targets, image=PICTURES, mask=[HALF, ~HALF], preserve=0.4, seed=5)
    for row in range(2):
        alone = edited(
            pipe, sources[row], targets[row], image=PICTURES[row], mask=(HALF, ~HALF)[row], preserve=0.4, seed=5
        )
        torch.testing.assert_close(together[row].latents, alone.latents, rtol=1e-4, atol=1e-4)
        assert together[row].prompt == alone.prompt == targets[row]


def test_every_seed_gives_another_edit(pipe: Any) -> None:
    one, again, other = (edited(pipe, seed=seed) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes() != other.tobytes()


def test_the_same_controls(pipe: Any) -> None:
    source = edited(pipe, "a cat", "a cat")
    free, held, late = edited(pipe), edited(pipe, preserve=1.0, source_guidance=0.0), edited(pipe, strength=0.4)
    assert moved(free, source) > moved(held, source) > 0
    assert late.passes == 2
    assert moved(free, source) > moved(late, source) > 0
    masked = edited(pipe, mask=HALF, mask_feather=0)
    assert np.array_equal(np.asarray(masked)[~HALF], np.asarray(PICTURES[0])[~HALF])
    assert torch.equal(masked.latents[..., 4:], source.latents[..., 4:])
    automatic = edited(pipe, mask="auto")
    assert automatic.passes == 4 * STEPS
    assert 0 <= automatic.mask.min() <= automatic.mask.max() == 1
    table = edited(pipe, "a cat", ["a dog", "rain"], preserve=["creative", "faithful"])
    assert [[edit.prompt for edit in row] for row in table] == [["a dog"] * 2, ["rain"] * 2]
    assert table[0][0].tobytes() == free.tobytes()
    guided = edited(pipe, guidance_scale=3.0, negative_prompt="rain")
    assert guided.tobytes() not in (free.tobytes(), edited(pipe, guidance_scale=3.0).tobytes())


def test_it_chains(pipe: Any) -> None:
    first = edited(pipe, mask=HALF, mask_feather=0)
    second = first.edit("rain", mask=~HALF, mask_feather=0)
    assert second.passes == 2 * STEPS
    assert np.array_equal(np.asarray(second)[HALF], np.asarray(first)[HALF])
    assert torch.equal(second.latents[..., :4], first.latents[..., :4])


def test_pictures_of_any_shape(pipe: Any) -> None:
    wide = Image.fromarray(np.asarray(PICTURES[0])[:8])
    mask = HALF[:8]
    result = edited(pipe, image=wide, mask=mask, mask_feather=0)
    assert result.size == (32, 8)
    assert np.array_equal(np.asarray(result)[~mask], np.asarray(wide)[~mask])


def test_another_number_of_steps(pipe: Any) -> None:
    assert edited(pipe, num_inference_steps=5).passes == 10


def test_the_global_random_state_stays_as_it_was(pipe: Any) -> None:
    before = torch.get_rng_state()
    edited(pipe)
    assert torch.equal(torch.get_rng_state(), before)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"source_prompt": 7}, TypeError, "source_prompt=7 is not text"),
    ({"source_prompt": ["a", "b"]}, ValueError, "2 texts in source_prompt for 1 pictures"),
    ({"prompt": None}, ValueError, "no prompt: pass prompt="),
    ({"prompt": 7}, TypeError, "prompt=7 is not text"),
    ({"prompt": ["a dog", 7]}, TypeError, "prompt=7 is not text"),
    ({"negative_prompt": 7}, TypeError, "negative_prompt=7 is not text"),
    ({"image": []}, ValueError, r"image=\[\] holds no picture"),
    ({"size": 30}, ValueError, "size=30 does not fit"),
    ({"num_inference_steps": 0}, ValueError, "num_inference_steps=0"),
    ({"guidance_scale": 0.5}, ValueError, "guidance_scale=0.5"),
    ({"strength": 0.1}, ValueError, "leaves no step"),
    ({"preserve": 2}, ValueError, "preserve=2"),
    ({"seed": -1}, ValueError, "seed=-1"),
    ({"mask": np.zeros((32, 32))}, ValueError, "the mask is black"),
    ({"progress": 7}, TypeError, "progress=7 is no Progress"),
]


@pytest.fixture(scope="module")
def refusing() -> Any:
    return untouchable()


@pytest.mark.parametrize(("change", "kind", "message"), WRONG, ids=[repr(change)[:60] for change, _, _ in WRONG])
def test_mistakes_are_named_before_any_work(
    change: dict[str, Any], kind: type[Exception], message: str, refusing: Any
) -> None:
    arguments: dict[str, Any] = {"image": PICTURES[0], "source_prompt": "a cat", "prompt": "a dog", "preset": SETTINGS}
    with pytest.raises(kind, match=message):
        renoise.edit(refusing, **{**arguments, **change})
    with pytest.raises(NetworkRanError):
        renoise.edit(refusing, **arguments)


def test_a_scheduler_that_cannot_be_inverted_is_refused() -> None:
    clipping = tiny.sd()
    clipping.scheduler = tiny.ddim(clip_sample=True)
    with pytest.raises(renoise.NotInvertible, match="clip_sample=False"):
        edited(clipping)


def test_without_a_source_prompt_it_is_the_empty_one(pipe: Any) -> None:
    assert edited(pipe, None, "a dog", preserve=0.3).tobytes() == edited(pipe, "", "a dog", preserve=0.3).tobytes()


def test_a_further_edit_keeps_its_noise_unless_randomness_is_asked_for(pipe: Any) -> None:
    first = edited(pipe, seed=5)
    further = [first.edit("snow", preserve=0.2, seed=seed) for seed in (0, 7)]
    assert further[0].tobytes() == further[1].tobytes()
    assert first.edit("snow", preserve=0.2, randomness=1.0, seed=7).tobytes() != further[0].tobytes()
