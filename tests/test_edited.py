"""Edited pictures: the promise of masks, chains of edits, dials, strength, seeds, files, progress."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import renoise
from renoise import images
from renoise.core.settings import Region, Settings
from renoise.edit_controls import PRESERVE
from tests.helpers import tiny

STEPS = 4
SETTINGS = Settings((Region(iterations=1),), num_inference_steps=STEPS)


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Random blobs, (height, width)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def numbers(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image).astype(int)


def fitted(inversion: renoise.Inversion, row: int = 0) -> np.ndarray[Any, Any]:
    """The picture that went in, in the size of the model and without padding."""
    return numbers(images.unfit(images.to_pil(inversion.pixels)[row], inversion.record.boxes[row]))


def corner(height: int = 32, width: int = 32, right: bool = False) -> np.ndarray[Any, Any]:
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 4 :, width // 2 :] = right
    mask[height // 4 :, : width // 2] = not right
    return mask


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.sd(tiny.euler_ancestral())


@pytest.fixture(scope="module")
def inv(pipe: Any) -> renoise.Inversion:
    return renoise.invert(pipe, picture(), "a cat", preset=SETTINGS, keep_latents=True)


@pytest.fixture(scope="module")
def wide(pipe: Any) -> renoise.Inversion:
    """Two pictures of other shapes than the model's, so with padding."""
    sources = [picture(0, (16, 64)), picture(1, (64, 24))]
    return renoise.invert(pipe, sources, ["a cat", "dogs"], preset=SETTINGS, keep_latents=True)


# ---------------------------------------------------------------- the promise of masks


@pytest.mark.parametrize(("grow", "feather"), [(0, 0), (2, 3), (-2, 1), (0, None)])
def test_beyond_the_mask_and_its_feather_the_pixels_are_those_of_the_input(
    inv: renoise.Inversion, grow: int, feather: int | None
) -> None:
    edited = inv.edit("a dog", mask=corner(), mask_grow=grow, mask_feather=feather)
    reach = grow + (1 if feather is None else feather)
    may = np.zeros((32, 32), dtype=bool)
    may[8 - reach :, : 16 + reach] = True
    assert np.array_equal(numbers(edited)[~may], fitted(inv)[~may])
    assert edited.mask.shape == (32, 32)
    assert np.array_equal(edited.mask.numpy() > 0, may)
    assert (numbers(edited)[edited.mask.numpy() == 1] != fitted(inv)[edited.mask.numpy() == 1]).mean() > 0.5


def test_five_chained_edits_keep_what_no_mask_touched(inv: renoise.Inversion) -> None:
    """Other prompts, masks and dials: in the pixels, in the source of the next edit and in its latents."""
    may = np.zeros((32, 32), dtype=bool)
    result: Any = inv
    controls: list[dict[str, Any]] = [{"preserve": 0.5}, {"strength": 0.5}, {"randomness": 1.0}]
    controls += [{"guidance_scale": 3.0}, {}]
    for number, more in enumerate(controls):
        mask = np.zeros((32, 32), dtype=bool)
        mask[8 + number : 16, 4 : 12 + number] = True
        result = result.edit(f"dog {number}", mask=mask, mask_feather=1, **more)
        may |= result.mask.numpy() > 0
        assert np.array_equal(numbers(result)[~may], fitted(inv)[~may])
        source = result._source.pixels[0].permute(1, 2, 0)
        assert torch.equal(source[torch.from_numpy(~may)], inv.pixels[0].permute(1, 2, 0)[torch.from_numpy(~may)])
    untouched = torch.from_numpy(~may).reshape(8, 4, 8, 4).all(3).all(1)
    assert untouched.any()
    assert torch.equal(result.latents[0][:, untouched], inv.z_0[0][:, untouched])
    assert (numbers(result)[may] != fitted(inv)[may]).mean() > 0.5


def test_masks_of_padded_pictures_in_a_batch(wide: renoise.Inversion) -> None:
    masks = [corner(16, 64), corner(64, 24, right=True)]
    edits = wide.edit("a dog", mask=masks, mask_feather=0)
    for row, (edited, own) in enumerate(zip(edits, masks, strict=True)):
        may = np.asarray(Image.fromarray(own).convert("L").resize(edited.size, Image.Resampling.BOX)) > 0
        assert edited.size == ((32, 8), (12, 32))[row]
        assert edited.mask.shape == may.shape
        assert np.array_equal(numbers(edited)[~may], fitted(wide, row)[~may])
        assert (numbers(edited)[may] != fitted(wide, row)[may]).mean() > 0.5
    again = edits[1].edit("snow", mask=corner(64, 24), mask_feather=0)
    untouched = np.arange(32) < 8
    assert np.array_equal(numbers(again)[untouched], fitted(wide, 1)[untouched])


def test_an_automatic_mask(inv: renoise.Inversion) -> None:
    edited = inv.edit("a dog", mask="auto", mask_grow=1, mask_feather=2)
    assert edited.passes == 2 * STEPS
    assert edited.mask.dtype == torch.float32
    assert 0 <= edited.mask.min() < edited.mask.max() <= 1
    mask = edited.mask.numpy()
    assert np.array_equal(numbers(edited)[mask == 0], fitted(inv)[mask == 0])
    again = inv.edit("a dog", mask=edited.mask, mask_feather=0)  # a mask of one edit is one for the next
    assert again.passes == STEPS
    torch.testing.assert_close(again.mask, edited.mask, rtol=0, atol=1 / 254)
    assert np.abs(numbers(again) - numbers(edited)).mean() < 4


def test_an_automatic_mask_of_padded_pictures_lies_in_the_pictures(wide: renoise.Inversion) -> None:
    for edited in wide.edit("a dog", mask="auto", mask_grow=3):
        assert edited.mask.shape == (edited.height, edited.width)
        assert edited.mask.max() == 1


# ---------------------------------------------------------------- equal prompts


@pytest.mark.parametrize(
    "controls",
    [{"preserve": 0.5}, {"strength": 0.5}, {"randomness": 1.0}, {"source_guidance": 2.0}, {"mask": "auto"}],
    ids=str,
)
def test_equal_prompts_with_controls_give_the_picture_back_without_a_pass(
    inv: renoise.Inversion, controls: dict[str, Any]
) -> None:
    edited = inv.edit("a cat", **controls)
    assert edited.passes == 0
    assert torch.equal(edited.latents, inv.z_0)
    expected = fitted(inv) if "mask" in controls else numbers(images.to_pil(inv.round_trip())[0])
    assert np.array_equal(numbers(edited), expected)


def test_equal_prompts_give_the_picture_back_in_a_chain(inv: renoise.Inversion) -> None:
    first = inv.edit("a dog", preserve=0.3)
    second = first.edit("a dog", preserve="faithful")
    assert (second.passes, second.tobytes()) == (0, first.tobytes())


# ---------------------------------------------------------------- controls


def test_names_of_the_dial_are_its_numbers(inv: renoise.Inversion) -> None:
    assert list(PRESERVE) == ["creative", "balanced", "faithful"]
    for name, number in PRESERVE.items():
        assert inv.edit("a dog", preserve=name).tobytes() == inv.edit("a dog", preserve=number).tobytes()


def test_the_dial_at_0_is_the_prompt_swap(inv: renoise.Inversion) -> None:
    assert inv.edit("a dog", preserve=0).tobytes() == inv.edit("a dog").tobytes()


def test_more_is_kept_the_higher_the_dial(inv: renoise.Inversion) -> None:
    edits = inv.edit("a dog", preserve=[0.0, 0.4, 0.7, 1.0], source_guidance=0.0)
    moved = [float((edit.latents - inv.z_0).abs().mean()) for edit in edits]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 1.5 * moved[-1]


def test_several_prompts_and_dials_nest(inv: renoise.Inversion) -> None:
    prompts, dials = ["a dog", "a cat", "rain"], list[float | str](["balanced", 0.0])
    table = inv.edit(prompts, preserve=dials)
    assert [[edit.prompt for edit in row] for row in table] == [[prompt] * 2 for prompt in prompts]
    assert table[0][0].tobytes() == inv.edit("a dog", preserve="balanced").tobytes()
    assert table[2][1].tobytes() == inv.edit("rain").tobytes()
    assert [edit.tobytes() for edit in inv.edit(prompts)] == [row[1].tobytes() for row in table[:1]] + [
        inv.edit("a cat").tobytes(),
        table[2][1].tobytes(),
    ]


def test_dials_of_a_batch_are_a_list_of_batches(wide: renoise.Inversion) -> None:
    strips = wide.edit(["rain", "snow"], preserve=["balanced", "faithful"])
    assert [[edit.prompt for edit in strip] for strip in strips] == [["rain", "snow"]] * 2
    assert [edit.size for edit in strips[0]] == [(32, 8), (12, 32)]


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 4), (0.8, 3), (0.5, 2), (0.25, 1)])
def test_strength_edits_the_steps_nearest_to_the_picture(inv: renoise.Inversion, strength: float, steps: int) -> None:
    edited = inv.edit("a dog", strength=strength, preserve=0.3, source_guidance=1.0)
    assert edited.passes == steps + steps - 1


def test_less_strength_moves_less(inv: renoise.Inversion) -> None:
    moved = [float((inv.edit("a dog", strength=s).latents - inv.z_0).abs().mean()) for s in (1.0, 0.5, 0.25)]
    assert moved == sorted(moved, reverse=True)


def test_fresh_noise_has_a_seed(inv: renoise.Inversion) -> None:
    def edited(randomness: float, seed: int) -> bytes:
        return bytes(inv.edit("a dog", preserve=0.1, randomness=randomness, seed=seed).tobytes())

    assert edited(0.5, 1) == edited(0.5, 1) != edited(0.5, 2) != edited(1.0, 2)
    assert edited(0.0, 1) == edited(0.0, 2)
    assert inv.edit("a dog", randomness=0.5).passes == 2 * STEPS


def test_source_guidance_goes_further(inv: renoise.Inversion) -> None:
    edits = [inv.edit("a dog", source_guidance=w) for w in (0.0, 0.5, 2.0)]
    moved = [float((edit.latents - inv.z_0).abs().mean()) for edit in edits]
    assert moved == sorted(moved)
    assert [edit.passes for edit in edits] == [STEPS, 2 * STEPS - 1, 2 * STEPS - 1]
    guided = inv.edit("a dog", preserve=0.5)  # by default as much as goes with the gate
    assert guided.tobytes() == inv.edit("a dog", preserve=0.5, source_guidance=1.0).tobytes()
    assert inv.edit("a dog", preserve=0.5, guidance_scale=3.0).passes == STEPS


def test_negative_prompts_and_guidance_of_an_edit_with_controls(inv: renoise.Inversion) -> None:
    given: list[dict[str, Any]] = [{}, {"guidance_scale": 3.0}, {"guidance_scale": 3.0, "negative_prompt": "a cat"}]
    edits = [inv.edit("a dog", preserve=0.4, **more) for more in given]
    assert len({edit.tobytes() for edit in edits}) == 3
    unguided = inv.edit("a dog", preserve=0.4, negative_prompt="rain", source_guidance=0)
    assert unguided.tobytes() == inv.edit("a dog", preserve=0.4, source_guidance=0).tobytes()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"preserve": 1.1}, "preserve=1.1 is no number from 0 to 1, and none of creative, balanced, faithful"),
    ({"preserve": "careful"}, "preserve='careful' is none of creative, balanced, faithful, and no number"),
    ({"preserve": [0.5, 2]}, "preserve=2 is no number from 0 to 1"),
    ({"preserve": []}, "preserve"),
    ({"strength": 0}, r"strength=0 is not in \(0, 1\]"),
    ({"strength": 0.1}, "leaves no step"),
    ({"source_guidance": -1}, "source_guidance=-1 is no number from 0 to 100"),
    ({"randomness": 1.5}, "randomness=1.5 is no number from 0 to 1"),
    ({"seed": -1, "randomness": 0.5}, "seed=-1 is not a whole number"),
    ({"num_inference_steps": 10, "preserve": 0.5}, "num_inference_steps=10 with preserve, strength, source_guidance,"),
    ({"num_inference_steps": 10, "mask": "auto"}, "these work on the steps of the inversion; leave one or the other"),
    ({"prompt": None, "preserve": 0.5}, "no prompt: pass prompt="),
    ({"prompt": []}, "0 texts in prompt for 1 pictures"),
    ({"prompt": ["a dog", "\ud800"]}, "half of a character"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[repr(change)[:60] for change, _ in WRONG])
def test_controls_that_cannot_work_are_refused_before_a_network_runs(
    change: dict[str, Any], message: str, inv: renoise.Inversion
) -> None:
    ran: list[int] = []
    with (
        inv.pipe.unet.register_forward_pre_hook(lambda *_: ran.append(1)),
        pytest.raises(ValueError, match=message),
    ):
        inv.edit(**{"prompt": "a dog", **change})
    assert not ran


# ---------------------------------------------------------------- results


def test_a_result_is_a_pil_image(inv: renoise.Inversion, tmp_path: Path) -> None:
    edited = inv.edit("a dog", preserve=0.3, mask=corner())
    assert isinstance(edited, renoise.Edited)
    assert isinstance(edited, Image.Image)
    assert (edited.mode, edited.size, edited.prompt) == ("RGB", (32, 32), "a dog")
    assert edited.latents.shape == (1, 4, 8, 8)
    edited.save(tmp_path / "edited.png")
    with Image.open(tmp_path / "edited.png") as opened:
        assert opened.tobytes() == edited.tobytes()
    for plain in (edited.copy(), copy.copy(edited), copy.deepcopy(edited), pickle.loads(pickle.dumps(edited))):
        assert (plain.tobytes(), plain.size) == (edited.tobytes(), edited.size)
    assert type(pickle.loads(pickle.dumps(edited))) is Image.Image
    assert edited.crop((0, 0, 4, 8)).size == (4, 8)
    assert np.asarray(edited).shape == (32, 32, 3)
    assert edited.convert("L").mode == edited.resize((8, 8)).convert("L").mode == "L"


def test_results_of_a_batch_know_their_own_row(wide: renoise.Inversion) -> None:
    one, two = wide.edit(["rain", "snow"], preserve=0.4)
    assert (one.prompt, two.prompt) == ("rain", "snow")
    assert one.latents.shape == two.latents.shape == (1, 4, 8, 8)
    alone = two.edit("dogs", preserve=0.4)
    assert (alone.size, alone.prompt) == ((12, 32), "dogs")


def test_a_chain_keeps_what_both_prompts_share(inv: renoise.Inversion) -> None:
    """An edit of an edit changes what its prompts disagree about, and is no edit of the first picture."""
    first = inv.edit("a dog")
    second = first.edit("a dog in the rain", preserve=0.4)
    assert second.passes == 2 * STEPS + STEPS - 1
    direct = inv.edit("a dog in the rain", preserve=0.4)
    assert (second.latents - first.latents).abs().mean() < (second.latents - direct.latents).abs().mean()
    assert second.tobytes() not in (direct.tobytes(), first.tobytes())
    third = second.edit("a dog in the rain", strength=0.5)
    assert torch.equal(third.latents, second.latents)


def test_a_chain_goes_to_no_auto_encoder_for_its_source(inv: renoise.Inversion, monkeypatch: Any) -> None:
    first = inv.edit("a dog", preserve=0.4)
    monkeypatch.setattr(inv.pipe.vae, "encode", lambda *_: pytest.fail("encoded"))
    assert first.edit("rain", preserve=0.4).edit("snow").passes == 2 * STEPS


@pytest.mark.parametrize("keep", [True, False])
def test_a_saved_inversion_edits_equally(pipe: Any, keep: bool, tmp_path: Path) -> None:
    controls: dict[str, Any] = {"preserve": 0.4, "strength": 0.8, "mask": corner()}
    inversion = renoise.invert(pipe, picture(), "a cat", preset=SETTINGS, keep_latents=keep)
    inversion.save(tmp_path / "cat.safetensors")
    loaded = renoise.load(tmp_path / "cat.safetensors", pipe)
    one, two = inversion.edit("a dog", **controls), loaded.edit("a dog", **controls)
    assert one.tobytes() == two.tobytes()
    assert one.passes == two.passes == 3 + 2 + (0 if keep else STEPS - 1)


@pytest.mark.parametrize("after", [0, 2, 5])
def test_cancelling_an_edit_leaves_everything_usable(pipe: Any, after: int) -> None:
    """In the walk and in the edit itself."""
    fresh = renoise.invert(pipe, picture(), "a cat", preset=SETTINGS)
    before, told = pipe.scheduler, list[str]()

    def look(progress: renoise.Progress) -> None:
        told.append(progress.stage)
        if len(told) > after:
            progress.cancel()

    with pytest.raises(renoise.Cancelled):
        fresh.edit("a dog", preserve=0.5, progress=renoise.Progress(look))
    assert pipe.scheduler is before
    assert told[-1] == ("walk" if after < 4 else "generate")
    fresh.reconstruct()
    assert fresh.edit("a dog", preserve=0.5).tobytes() == fresh.edit("a dog", preserve=0.5).tobytes()


def test_without_a_prompt_it_is_the_empty_prompt(pipe: Any) -> None:
    silent = renoise.invert(pipe, picture(), preset=SETTINGS)
    empty = renoise.invert(pipe, picture(), "", preset=SETTINGS)
    assert silent.scene.prompts == ("",)
    assert torch.equal(silent.latents, empty.latents)
    assert silent.edit("a dog", preserve=0.4).tobytes() == empty.edit("a dog", preserve=0.4).tobytes()
    assert silent.edit("", preserve=0.4).passes == 0


def test_the_record_is_left_as_it_was(pipe: Any) -> None:
    fresh = renoise.invert(pipe, picture(), "a cat", preset=SETTINGS)
    kept = replace(fresh.record)
    fresh.edit("a dog", preserve=0.4, mask="auto").edit("rain")
    assert vars(fresh.record) == vars(kept)
    assert fresh.trajectory.step_latents is None


def test_in_a_batch_a_picture_whose_prompt_stays_comes_back_as_it_does_alone(pipe: Any) -> None:
    both = renoise.invert(pipe, [picture(0), picture(1)], "a cat", preset=SETTINGS)
    for mask in (None, "auto"):
        same, other = both.edit(["a cat", "a dog"], preserve=0.5, mask=mask)
        assert torch.equal(same.latents, both.z_0[:1])
        assert not torch.equal(other.latents, both.z_0[1:])
        assert mask is None or not same.mask.any()


@pytest.mark.parametrize("keyword", ["eta", "timesteps", "sigmas"])
def test_other_steps_are_refused_with_controls_too(inv: renoise.Inversion, keyword: str) -> None:
    for source in (inv, inv.edit("a dog")):
        with pytest.raises(
            ValueError, match=f"{keyword} in pipe_kwargs of an edit: it uses the steps of the inversion"
        ):
            source.edit("a dog", preserve=0.5, pipe_kwargs={keyword: 0.5})


def test_what_cannot_be_made_is_refused_before_the_first_of_several_edits(inv: renoise.Inversion) -> None:
    passes = list[int]()
    progress = renoise.Progress(lambda told: passes.append(told.passes))
    with pytest.raises(ValueError, match="num_inference_steps=8 with preserve"):
        inv.edit("a dog", preserve=["creative", "balanced"], num_inference_steps=8, progress=progress)
    assert passes == []


def test_one_of_many_edited_pictures_keeps_no_others_alive(pipe: Any) -> None:
    one, _ = renoise.invert(pipe, [picture(0), picture(1)], "a cat", preset=SETTINGS).edit("a dog", preserve=0.5)
    assert one.latents.untyped_storage().nbytes() == one.latents.nbytes


def test_the_mask_of_an_edit_does_not_grow_where_it_is_used_again(inv: renoise.Inversion) -> None:
    first = inv.edit("a dog", mask=corner())
    again = first.edit("rain", mask=first.mask)
    torch.testing.assert_close(again.mask, first.mask, rtol=0, atol=1 / 255)
    with pytest.raises(ValueError, match="mask_grow=-30 leaves nothing of the mask"):
        inv.edit("a dog", mask=corner(), mask_grow=-30)
