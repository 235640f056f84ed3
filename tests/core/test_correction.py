"""Noise correction: recorded numbers, the dial from none to exact, batches, refusals; whiteness.

The recorded numbers are float64 values of the method's reference implementation, used as data only, in
`golden/units.safetensors`:

* `eulerN.noise`, `.exact`, `.bounded` [step, 4, 16, 16]: one correction at each stochastic step of ancestral Euler in
  N = 4 or 8 steps, taken alone: the noise before, the residual eps*, the noise after ten steps of 1.8 towards it.
* `<case>.z_s`, `.z_t`, `.m`, `.noise`, `.corrected` [step, 4, 16, 16]: the corrections of two whole inversions, from
  the step nearest the image to the noisiest, the step without noise left out; `m` is the prediction of the one extra
  pass made at z_t for this.  `scheduler_sigmas` are the noise levels of both, noisiest first.

The reference always walks ten steps of 1.8, so around a residual nearer than 18 it steps to and fro and ends up to 1.8
away from it, on either side; ours stops there.  `in_ten_steps` repeats that walk, and the tests say where they differ.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from renoise.core.correction import correct, travel, whiteness

GOLDEN = Path(__file__).parents[1] / "data/golden" / "units.safetensors"
ROOT_DIM = math.sqrt(4 * 16 * 16)


@pytest.fixture(scope="module")
def units() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(GOLDEN)
    return tensors


def white(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_ten_steps(noise: Tensor, residual: Tensor, length: float = 1.8) -> Tensor:
    for _ in range(10):
        way = residual - noise
        noise = noise + length * way / way.flatten(1).norm(dim=1)[:, None, None, None]
    return noise


def residual_of(units: dict[str, Tensor], case: str) -> Tensor:
    """The residual eps* of an ancestral Euler step, z_s = z_t + (down - sigma) m + up eps, solved for eps."""
    sigmas = units["scheduler_sigmas"]
    sigma, following = (sigmas[i].flip(0).view(3, 1, 1, 1) for i in (slice(0, 3), slice(1, 4)))
    up = following * (1 - (following / sigma) ** 2).sqrt()
    down = following**2 / sigma
    return (units[f"{case}.z_s"] - units[f"{case}.z_t"] - (down - sigma) * units[f"{case}.m"]) / up


@pytest.mark.parametrize("case", ["euler4", "euler8", "sdxl_euler4_K9_corr", "sdxl_euler4_K9_all"])
def test_recorded_corrections(units: dict[str, Tensor], case: str) -> None:
    noise = units[f"{case}.noise"]
    whole = case.startswith("sdxl")
    residual = residual_of(units, case) if whole else units[f"{case}.exact"]
    recorded = units[f"{case}.corrected" if whole else f"{case}.bounded"]
    walked = in_ten_steps(noise, residual)
    ours = correct(noise, residual, bound=18 / ROOT_DIM)
    distance = travel(noise, residual) * ROOT_DIM

    far = distance >= 18
    assert far.sum().item() == {"euler4": 0, "euler8": 2, "sdxl_euler4_K9_corr": 0, "sdxl_euler4_K9_all": 2}[case]
    for image in range(len(noise)):
        scale = recorded[image].norm()
        assert ((walked[image] - recorded[image]).norm() / scale).item() < 1e-6
        if far[image]:
            assert ((ours[image] - recorded[image]).norm() / scale).item() < 1e-6
        else:
            assert torch.equal(ours[image], residual[image])
            assert 0.1 < (recorded[image] - residual[image]).norm().item() < 1.8
        if distance[image] < 1.8:  # ten steps to and fro: the reference has not moved
            assert ((noise[image] - recorded[image]).norm() / scale).item() < 1e-6


def test_the_dial_runs_from_none_to_exact() -> None:
    noise, residual = white(3, 4, 8, 8), white(3, 4, 8, 8, seed=1)
    distance = travel(noise, residual)
    assert torch.equal(correct(noise, residual, bound=0.0), noise)
    assert torch.equal(correct(noise, residual, bound=math.inf), residual)
    for bound in (0.01, 0.14, 0.5, 1.0):
        out = correct(noise, residual, bound=bound)
        torch.testing.assert_close(travel(noise, out), torch.full_like(distance, bound), rtol=1e-12, atol=0)
        torch.testing.assert_close(travel(out, residual), distance - bound, rtol=1e-12, atol=0)
    assert torch.equal(correct(noise, residual, bound=2.0), residual)


def test_the_bound_means_the_same_at_every_resolution() -> None:
    small, residual = white(1, 4, 8, 8), white(1, 4, 8, 8, seed=1)
    large, large_residual = (each.repeat(1, 1, 4, 4) for each in (small, residual))
    out = correct(large, large_residual, bound=0.14)
    torch.testing.assert_close(out, correct(small, residual, bound=0.14).repeat(1, 1, 4, 4), rtol=1e-12, atol=1e-14)


def test_a_residual_already_reached_stays() -> None:
    noise = white(2, 4, 8, 8)
    for bound in (0.0, 0.14, math.inf):
        assert torch.equal(correct(noise, noise.clone(), bound=bound), noise)


def test_no_correction_does_not_read_the_residual() -> None:
    noise = white(1, 4, 8, 8)
    assert torch.equal(correct(noise, torch.full_like(noise, math.nan), bound=0.0), noise)


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 16, 5, 9)])
def test_images_do_not_meet(shape: tuple[int, int, int, int]) -> None:
    noise = white(*shape)
    reach = torch.linspace(0.01, 1, shape[0], dtype=torch.float64).view(-1, 1, 1, 1)
    residual = noise + reach * white(*shape, seed=1)
    out, measured, moved = correct(noise, residual, bound=0.14), whiteness(noise), travel(noise, residual)
    assert torch.equal(out[0], residual[0])
    assert not torch.equal(out[-1], residual[-1])
    for image in range(shape[0]):
        one = slice(image, image + 1)
        assert torch.equal(correct(noise[one], residual[one], bound=0.14), out[one])
        torch.testing.assert_close(travel(noise[one], residual[one]), moved[one], rtol=1e-12, atol=0)
        alone = whiteness(noise[one])
        torch.testing.assert_close(alone.std, measured.std[one], rtol=1e-12, atol=0)
        torch.testing.assert_close(alone.neighbour, measured.neighbour[one], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("bound", [0.0, 0.14, math.inf])
def test_nothing_passed_in_changes(bound: float) -> None:
    noise, residual = white(2, 4, 8, 8), white(2, 4, 8, 8, seed=1)
    before, state = (noise.clone(), residual.clone()), torch.get_rng_state()
    out = correct(noise, residual, bound=bound)
    whiteness(noise)
    out.add_(1)
    assert torch.equal(noise, before[0])
    assert torch.equal(residual, before[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert correct(noise.float(), residual.float(), bound=bound).dtype == torch.float32


def test_whiteness_of_white_of_striped_and_of_smooth_noise() -> None:
    noise = white(2, 4, 64, 64)
    measured = whiteness(noise)
    torch.testing.assert_close(measured.std, torch.ones(2, dtype=torch.float64), rtol=0, atol=0.02)
    torch.testing.assert_close(measured.neighbour, torch.zeros(2, dtype=torch.float64), rtol=0, atol=0.02)

    pairs = (noise + noise.roll(1, 3)) / 2**0.5  # left and right neighbours share half, upper and lower nothing
    for smooth in (pairs, pairs.mT):
        torch.testing.assert_close(
            whiteness(3 * smooth + 1).neighbour, torch.full((2,), 0.25, dtype=torch.float64), rtol=0, atol=0.02
        )
    torch.testing.assert_close(whiteness(3 * noise + 1).std, 3 * measured.std, rtol=1e-12, atol=0)

    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checkerboard = (1.0 - 2.0 * ((row + column) % 2)).expand(1, 1, 8, 8)
    assert whiteness(checkerboard).neighbour.item() == -1
    assert whiteness(checkerboard).std.item() == 1


@pytest.mark.parametrize("bound", [-0.1, math.nan, -math.inf])
def test_impossible_bounds_are_refused(bound: float) -> None:
    noise = white(1, 4, 8, 8)
    with pytest.raises(ValueError, match=rf"bound={bound}.*0\.0.*math\.inf"):
        correct(noise, noise, bound=bound)


def test_tensors_that_do_not_match_are_refused() -> None:
    noise = white(2, 4, 8, 8)
    for other in (noise[:1], noise.float()):
        for bound in (0.0, 0.14):
            with pytest.raises(
                ValueError, match=r"noise is torch\.float64 \[2, 4, 8, 8\].*pass two of one shape and dtype"
            ):
                correct(noise, other, bound=bound)
        with pytest.raises(ValueError, match=r"pass two of one shape and dtype"):
            travel(noise, other)
    for poor in (noise[0], noise[..., :1]):
        with pytest.raises(ValueError, match=r"neighbours.*sides 2 or more"):
            whiteness(poor)
