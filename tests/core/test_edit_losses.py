"""Edit-enhancement losses: recorded numbers, finite differences, batches, shapes, random rolls.

The recorded numbers are float64 values of the method's reference implementation, used as data only.

`golden/units.safetensors`, cut from the recording of single functions: for latents of S = 16, 32, 64 pixels `regS.in`
and `regS.optimal` (prediction and target), `regS.rolls` (rows of exclusive upper bound and roll, ordered step, roll,
channel, level), value and gradient of both losses (`ac_`: L_pair of the first roll, `kl_`: L_patch-KL), and what four
gradient steps of five rolls make of `in` with lambdas 20 and .065 (`ac.out`, `kl.out`, `both.out`; at 64 only both).
Its other tensors are explained in `test_correction.py`.

`golden/enhance_calls.safetensors`, cut from the traces of two whole inversions (ancestral Euler in 4 steps with K = 9,
DDIM in 10 steps with K = 1): every call of the losses in order, stacked [call, 4, 16, 16] as `<case>.in`, `.optimal`,
`.out`, with `<case>.rolls` [call, step, roll, channel, level] and the state of the generator they were drawn from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold

from renoise.core.edit_losses import enhance, pair_loss, patch_kl
from renoise.core.rolls import draw_rolls

Loss = Callable[..., tuple[Tensor, Tensor]]
GOLDEN = Path(__file__).parents[1] / "data/golden"
CASES = ("sdxl_euler4_K9_all", "sdxl_ddim10_K1_avg_reg")
SHAPES = [(2, 4, 16, 16), (1, 16, 8, 8), (1, 2, 12, 20), (2, 1, 17, 19), (1, 1, 35, 16), (1, 2, 4, 6)]


@pytest.fixture(scope="module")
def units() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(GOLDEN / "units.safetensors")
    return tensors


@pytest.fixture(scope="module")
def calls() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(GOLDEN / "enhance_calls.safetensors")
    return tensors


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + image) for image in range(count)]


def maps(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rolls_for(shape: tuple[int, ...], steps: int = 2, rolls: int = 3) -> Tensor:
    return draw_rolls(shape, steps=steps, rolls=rolls, generators=generators(shape[0]))


def recorded_rolls(units: dict[str, Tensor], side: int) -> Tensor:
    levels = {16: 2, 32: 3, 64: 4}[side]
    return units[f"reg{side}.rolls"][:, 1].long().reshape(1, 4, 5, 4, levels)


def assert_matches(actual: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Relative L2 distance."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert ((actual - expected).norm() / expected.norm()).item() < tolerance


def finite_differences(loss: Loss, x: Tensor, *others: Tensor, width: float = 1e-5) -> Tensor:
    """Central differences of the loss of one image in every pixel, the moved copies being one batch."""
    nudges = width * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    spread = [other.expand(len(nudges), *other.shape[1:]) for other in others]
    ahead, behind = (loss(x + sign * nudges, *spread)[0] for sign in (1, -1))
    return ((ahead - behind) / (2 * width)).view_as(x)


# --- recorded numbers


@pytest.mark.parametrize("side", [16, 32, 64])
def test_recorded_values_and_gradients(units: dict[str, Tensor], side: int) -> None:
    x, target, rolls = units[f"reg{side}.in"], units[f"reg{side}.optimal"], recorded_rolls(units, side)
    for (value, gradient), name in ((pair_loss(x, rolls[:, 0, 0]), "ac"), (patch_kl(x, target), "kl")):
        assert_matches(value, units[f"reg{side}.{name}_loss"], 1e-12)
        assert_matches(gradient, units[f"reg{side}.{name}_grad"], 1e-12)


@pytest.mark.parametrize(
    ("side", "name", "lambda_pair", "lambda_kl"),
    [(s, *run) for s in (16, 32) for run in (("ac", 20, 0), ("kl", 0, 0.065), ("both", 20, 0.065))]
    + [(64, "both", 20, 0.065)],
)
def test_recorded_gradient_steps(
    units: dict[str, Tensor], side: int, name: str, lambda_pair: float, lambda_kl: float
) -> None:
    x, target, rolls = units[f"reg{side}.in"], units[f"reg{side}.optimal"], recorded_rolls(units, side)
    expected = units[f"reg{side}.{name}.out"]
    out = enhance(x, target, lambda_pair=lambda_pair, lambda_kl=lambda_kl, steps=4, rolls=rolls)
    assert_matches(out, expected, 1e-12)
    single = enhance(x.float(), target.float(), lambda_pair=lambda_pair, lambda_kl=lambda_kl, steps=4, rolls=rolls)
    assert single.dtype == torch.float32
    assert_matches(single.double(), expected)


@pytest.mark.parametrize("case", CASES)
def test_recorded_calls_of_an_inversion_as_one_batch(calls: dict[str, Tensor], case: str) -> None:
    out = enhance(
        calls[f"{case}.in"],
        calls[f"{case}.optimal"],
        lambda_pair=20,
        lambda_kl=0.065,
        steps=4,
        rolls=calls[f"{case}.rolls"].long(),
    )
    for image, expected in zip(out, calls[f"{case}.out"], strict=True):
        assert_matches(image, expected, 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_recorded_rolls_are_drawn_again_from_their_generator(calls: dict[str, Tensor], case: str) -> None:
    generator = torch.Generator()
    generator.set_state(calls[f"{case}.generator_state"])
    for expected in calls[f"{case}.rolls"].long():
        drawn = draw_rolls((1, 4, 16, 16), steps=4, rolls=5, generators=[generator], include_zero=True)
        assert torch.equal(drawn[0], expected)


# --- values and gradients at any shape


@pytest.mark.parametrize("shape", SHAPES)
def test_pair_loss_against_its_definition_and_finite_differences(shape: tuple[int, int, int, int]) -> None:
    x, rolls = maps(shape), rolls_for(shape)[:, 0, 0]
    value, gradient = pair_loss(x, rolls)
    for image in range(shape[0]):
        expected = 0.0
        for channel in range(shape[1]):
            level_map = x[image : image + 1, channel : channel + 1]
            for roll in rolls[image, channel].tolist():
                for axis in (2, 3):
                    expected += (level_map * level_map.roll(roll, axis)).mean().item() ** 2
                level_map = avg_pool2d(level_map, 2)
            assert min(level_map.shape[-2:]) < 8  # the pyramid ended where it could go no lower
        assert value[image].item() == pytest.approx(expected, rel=1e-12)
        one = slice(image, image + 1)
        assert_matches(gradient[one], finite_differences(pair_loss, x[one], rolls[one]), 1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_patch_kl_against_its_definition_and_finite_differences(shape: tuple[int, int, int, int]) -> None:
    x, target = maps(shape), 0.3 + 1.2 * maps(shape, seed=2)
    value, gradient = patch_kl(x, target)
    for image in range(shape[0]):
        here, there = (unfold(each[image, :, None], 4, stride=4) for each in (x, target))  # [channel, pixel, patch]
        var, aim = here.var(1), there.var(1) + 1e-6
        squares = (here.mean(1) - there.mean(1)) ** 2
        expected = (aim / (var + 1e-6)).log() + (var + squares) / aim - 1
        assert value[image].item() == pytest.approx(expected.sum().item(), rel=1e-12)
        one = slice(image, image + 1)
        assert_matches(gradient[one], finite_differences(patch_kl, x[one], target[one]), 1e-7)


def test_patch_kl_of_a_map_to_itself_is_least() -> None:
    x = maps((1, 4, 8, 8))
    value, gradient = patch_kl(x, x)
    assert abs(value.item()) < 1e-3
    assert gradient.abs().max().item() == 0


def test_patch_kl_with_another_patch_and_a_rim() -> None:
    x, target = maps((1, 2, 11, 9)), maps((1, 2, 11, 9), seed=2)
    value, gradient = patch_kl(x, target, patch=3)
    assert torch.equal(gradient[..., 9:, :], torch.zeros(1, 2, 2, 9, dtype=torch.float64))
    assert gradient[..., :9, :].abs().min().item() > 0
    inner, inner_gradient = patch_kl(x[..., :9, :], target[..., :9, :], patch=3)
    assert torch.equal(value, inner)
    assert torch.equal(gradient[..., :9, :], inner_gradient)


@pytest.mark.parametrize("shape", SHAPES)
def test_enhance_is_the_stated_sequence_of_steps(shape: tuple[int, int, int, int]) -> None:
    x, target, rolls = maps(shape), maps(shape, seed=2), rolls_for(shape)
    expected = x.clone()
    for step in range(2):
        expected -= 0.05 * patch_kl(expected, target)[1]
        for roll in range(3):
            expected -= 10 / 3 * pair_loss(expected, rolls[:, step, roll])[1]
    out = enhance(x, target, lambda_pair=10, lambda_kl=0.05, steps=2, rolls=rolls)
    assert_matches(out, expected, 1e-12)


# --- images do not meet


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (3, 16, 12, 20)])
def test_a_batch_equals_its_images_one_by_one(shape: tuple[int, int, int, int]) -> None:
    x, target = maps(shape), maps(shape, seed=2)
    rolls = rolls_for(shape)
    together = enhance(x, target, lambda_pair=20, lambda_kl=0.065, steps=2, rolls=rolls)
    pair, kl = pair_loss(x, rolls[:, 0, 0]), patch_kl(x, target)
    for image in range(shape[0]):
        one = slice(image, image + 1)
        own = draw_rolls((1, *shape[1:]), steps=2, rolls=3, generators=generators(1, seed=image))
        assert torch.equal(own, rolls[one])
        alone = enhance(x[one], target[one], lambda_pair=20, lambda_kl=0.065, steps=2, rolls=own)
        assert_matches(alone, together[one], 1e-12)
        for whole, part in zip(pair + kl, pair_loss(x[one], own[:, 0, 0]) + patch_kl(x[one], target[one]), strict=True):
            assert_matches(part, whole[one], 1e-12)


# --- rolls


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 4, 24, 40), (1, 2, 9, 30), (1, 1, 4, 4)])
def test_rolls_stay_between_zero_and_half_the_shorter_side(shape: tuple[int, int, int, int]) -> None:
    rolls = draw_rolls(shape, steps=20, rolls=20, generators=generators(shape[0]))
    halves = {64: [32, 16, 8, 4], 24: [12, 6], 9: [4], 4: [2]}[shape[2]]
    assert rolls.dtype == torch.int64
    assert rolls.shape == (shape[0], 20, 20, shape[1], len(halves))
    for level, half in enumerate(halves):
        assert set(rolls[..., level].flatten().tolist()) == set(range(1, half))
    with_zero = draw_rolls(shape, steps=20, rolls=20, generators=generators(shape[0]), include_zero=True)
    for level, half in enumerate(halves):
        assert set(with_zero[..., level].flatten().tolist()) == set(range(half))


def test_white_noise_keeps_its_variance_unless_roll_zero_is_drawn() -> None:
    x = maps((4, 4, 16, 16))
    spread = {}
    for include_zero in (False, True):
        rolls = draw_rolls(x.shape, steps=4, rolls=5, generators=generators(4), include_zero=include_zero)
        spread[include_zero] = enhance(x, None, lambda_pair=20, lambda_kl=0, steps=4, rolls=rolls).std().item()
    assert spread[False] == pytest.approx(x.std().item(), rel=0.03)
    assert spread[True] < 0.85 * x.std().item()


def test_correlated_maps_become_whiter() -> None:
    white = maps((2, 4, 16, 16))
    x = (white + white.roll(1, 3)) / 2**0.5
    neighbours = torch.ones((2, 4, 5, 4, 2), dtype=torch.int64)
    out = enhance(x, None, lambda_pair=20, lambda_kl=0, steps=4, rolls=neighbours)
    before, after = ((each * each.roll(1, 3)).mean().item() for each in (x, out))
    assert before > 0.4
    assert abs(after) < 0.5 * before


# --- what is handed in stays as it is


def test_nothing_passed_in_changes_and_global_randomness_is_untouched() -> None:
    shape = (2, 4, 16, 16)
    x, target = maps(shape).requires_grad_(), maps(shape, seed=2).requires_grad_()
    state = torch.get_rng_state()
    rolls = draw_rolls(shape, steps=2, rolls=3, generators=generators(2))
    before = [each.detach().clone() for each in (x, target, rolls)]
    out = enhance(x, target, lambda_pair=20, lambda_kl=0.065, steps=2, rolls=rolls)
    results = [out, *pair_loss(x, rolls[:, 0, 0]), *patch_kl(x, target)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(now, then) for now, then in zip((x, target, rolls), before, strict=True))
    assert not any(each.requires_grad for each in results)
    untouched = enhance(x, None, lambda_pair=0, lambda_kl=0, steps=4, rolls=None)
    assert torch.equal(untouched, x)
    assert untouched.data_ptr() != x.data_ptr()


def test_memory_layout_does_not_matter() -> None:
    x, target = maps((2, 4, 16, 16)), maps((2, 4, 16, 16), seed=2)
    rolls = rolls_for((2, 4, 16, 16))
    plain = enhance(x, target, lambda_pair=20, lambda_kl=0.065, steps=2, rolls=rolls)
    last, turned = (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT)
    for other in (last, turned):
        assert_matches(enhance(other, target, lambda_pair=20, lambda_kl=0.065, steps=2, rolls=rolls), plain, 1e-12)
        assert_matches(pair_loss(other, rolls[:, 0, 0])[1], pair_loss(x, rolls[:, 0, 0])[1], 1e-12)
        assert_matches(patch_kl(other, target)[1], patch_kl(x, target)[1], 1e-12)


# --- refusals


def test_refusals_name_value_and_remedy() -> None:
    x = maps((1, 4, 16, 16))
    rolls = rolls_for((1, 4, 16, 16))
    settings: dict[str, Any] = {"lambda_pair": 20.0, "lambda_kl": 0.065, "steps": 2, "rolls": rolls}
    for change, words in (
        ({"lambda_pair": -1.0}, r"lambda_pair=-1\.0.*pass 0"),
        ({"lambda_kl": float("nan")}, r"lambda_kl=nan.*pass 0"),
        ({"lambda_kl": float("inf")}, r"lambda_kl=inf.*pass 0"),
        ({"steps": -1}, r"steps=-1.*pass 0"),
        ({"steps": 3}, r"\[1, 2, 3, 4, 2\].*\[1, 3, 3, 4, 2\].*draw_rolls"),
        ({"rolls": None}, r"lambda_pair=20\.0 needs rolls.*draw_rolls"),
        ({"rolls": rolls[0]}, r"\[2, 3, 4, 2\].*draw_rolls"),
        ({"rolls": rolls.double()}, r"float64.*whole numbers.*draw_rolls"),
    ):
        with pytest.raises(ValueError, match=words):
            enhance(x, x, **{**settings, **change})
    with pytest.raises(ValueError, match=r"lambda_kl=0\.065 needs a target.*lambda_kl=0"):
        enhance(x, None, **settings)
    with pytest.raises(ValueError, match=r"target is torch\.float32"):
        enhance(x, x.float(), **settings)
    with pytest.raises(ValueError, match=r"float16.*\.float\(\)"):
        enhance(x.half(), x.half(), **settings)
    with pytest.raises(ValueError, match=r"\[4, 16, 16\].*batch, channel"):
        patch_kl(x[0], x[0])
    with pytest.raises(ValueError, match=r"3x16 pixels.*4x4.*lambda_kl=0"):
        patch_kl(x[..., :3, :], x[..., :3, :])
    with pytest.raises(ValueError, match=r"1x1 with a variance"):
        patch_kl(x, x, patch=1)
    with pytest.raises(ValueError, match=r"\[1, 2\].*\[1, 4, 2\]"):
        pair_loss(x, rolls[:, 0, 0, 0])
    with pytest.raises(ValueError, match=r"2 generators for 1 images"):
        draw_rolls(x.shape, steps=2, rolls=3, generators=generators(2))
    with pytest.raises(ValueError, match=r"3x64 pixels.*lambda_pair=0"):
        draw_rolls((1, 4, 3, 64), steps=2, rolls=3, generators=generators(1))
    for steps, count in ((0, 5), (4, 0)):
        with pytest.raises(ValueError, match=rf"steps={steps}, rolls={count}.*lambda_pair=0"):
            draw_rolls(x.shape, steps=steps, rolls=count, generators=generators(1))
