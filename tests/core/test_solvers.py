"""Renoising and Anderson acceleration on denoisers whose step can be solved by hand, and on some that resist."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from renoise.core.query import Query
from renoise.core.solvers import Solution, anderson, renoise, solve
from renoise.core.table import StepTable
from renoise.core.toy import Toy
from renoise.pipelines.measure import measure

STEP = 1


def white(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module", name="table")
def made_table() -> StepTable:
    """Five steps of DDIM with fresh noise."""
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.set_timesteps(5)
    return measure(scheduler, eta=0.5)


def run(
    solver: Callable[..., Any],
    reverse: Callable[[Tensor], Tensor],
    start: Tensor,
    network: Callable[[Tensor], Tensor],
    passes: int,
    tol: float = 0.0,
) -> tuple[Solution, list[Tensor], list[Tensor]]:
    """The solution, the latents asked about and the predictions given."""
    points = solve(solver(reverse, start), reverse, passes=passes, tol=tol)
    asked, told = [next(points)[0]], []
    while True:
        told.append(network(asked[-1]))
        try:
            asked.append(points.send(told[-1])[0])
        except StopIteration as stop:
            solution: Solution = stop.value
            return solution, asked, told


def renoised(
    table: StepTable,
    z_s: Tensor,
    noise: Tensor,
    network: Callable[[Tensor], Tensor],
    iterations: int,
    weights: tuple[float, ...] | None = None,
    nudge: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Solution, list[Tensor], list[Tensor]]:
    """`run` for the published method."""
    reverse = partial(table.backward, STEP, z_s, noise=noise)
    return run(partial(renoise, weights=weights, nudge=nudge), reverse, z_s, network, iterations + 1)


def gaussian(table: StepTable, mean: Tensor, spread: float) -> Callable[[Tensor], Tensor]:
    toy = Toy(table, mean[None, None], (0, 0), spread)
    return lambda z: toy(Query(z, STEP))


def line(table: StepTable, spread: float) -> tuple[float, float]:
    """Slope of a Gaussian's noise prediction in z, and kappa = |b / a| times it."""
    slope = float(table.sigma[STEP] / (table.alpha[STEP] ** 2 * spread**2 + table.sigma[STEP] ** 2))
    return slope, abs(float(table.b[STEP] / table.a[STEP])) * slope


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_it_finds_the_solution_at_the_rate_of_the_contraction(table: StepTable, spread: float) -> None:
    z_s, noise, mean = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6), white(2, 3, 4, 6)
    slope, kappa = line(table, spread)
    assert 0.1 < kappa < 0.9
    a, b, n = (float(column[STEP]) for column in (table.a, table.b, table.n))
    # z_s = a z + b slope (z - alpha mean) + n eps, solved for z
    exact = (z_s + b * slope * table.alpha[STEP] * mean - n * noise) / (a + b * slope)
    solution, _, _ = renoised(table, z_s, noise, gaussian(table, mean, spread), iterations=30)
    errors = []
    for iterations in range(4):
        shorter, _, _ = renoised(table, z_s, noise, gaussian(table, mean, spread), iterations)
        errors.append(float((shorter.estimate - exact).norm()))
        torch.testing.assert_close(shorter.residuals, solution.residuals[: iterations + 1])
        assert shorter.passes == iterations + 1
    rates = [after / before for before, after in itertools.pairwise(errors)]
    assert rates == pytest.approx([kappa] * 3, rel=1e-9)
    shrinking = solution.residuals[2:8] / solution.residuals[1:7]
    torch.testing.assert_close(shrinking, torch.full_like(shrinking, kappa), rtol=1e-6, atol=0)
    assert float((solution.estimate - exact).norm()) < 2 * kappa**31 * float((z_s - exact).norm()) + 1e-12
    # and the sampler's own step from there arrives where we came from
    z_t = solution.estimate
    back = table.forward(STEP, z_t, gaussian(table, mean, spread)(z_t), noise)
    assert float((back - z_s).norm() / z_s.norm()) < 2 * kappa**31


def test_no_iterations_are_plain_reversing(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    solution, asked, told = renoised(table, z_s, noise, torch.tanh, iterations=0)
    assert len(asked) == 1
    assert asked[0].equal(z_s)
    assert solution.estimate.equal(table.backward(STEP, z_s, told[0], noise))


def test_each_pass_asks_at_the_estimate_of_the_last(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    solution, asked, told = renoised(table, z_s, noise, torch.tanh, iterations=3)
    for k in range(3):
        assert asked[k + 1].equal(table.backward(STEP, z_s, told[k], noise))
    assert solution.estimate.equal(table.backward(STEP, z_s, told[3], noise))
    for k, (before, after) in enumerate(zip(asked, [*asked[1:], solution.estimate], strict=True)):
        rms = (after - before).square().mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(solution.residuals[k], rms)


def test_the_best_point_is_the_one_of_the_smallest_residual_of_each_image(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    harsh = torch.tensor([0.5, 8.0], dtype=torch.float64).view(2, 1, 1, 1)  # contracts, and does not
    solution, asked, told = renoised(table, z_s, noise, lambda z: harsh * z, iterations=3)
    best = solution.residuals.argmin(0)
    assert best.tolist() == [3, 0]
    for image, k in enumerate(best.tolist()):
        assert solution.best[image].equal(asked[k][image])
        assert solution.prediction[image].equal(told[k][image])


def test_weights_average_the_predictions_and_are_normalised(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    solution, asked, told = renoised(table, z_s, noise, torch.tanh, iterations=3, weights=(0.0, 1.0, 3.0, 4.0))
    mean = (told[1] + 3 * told[2] + 4 * told[3]) / 8
    torch.testing.assert_close(solution.estimate, table.backward(STEP, z_s, mean, noise))
    _, plainly, _ = renoised(table, z_s, noise, torch.tanh, iterations=3)
    assert all(one.equal(other) for one, other in zip(asked, plainly, strict=True))
    off = (table.backward(STEP, z_s, told[3], noise) - asked[3]).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(solution.residuals[3], off)


def test_the_only_weight_on_the_last_pass_is_no_averaging(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    weighted, _, _ = renoised(table, z_s, noise, torch.tanh, iterations=2, weights=(0.0, 0.0, 5.0))
    plainly, _, _ = renoised(table, z_s, noise, torch.tanh, iterations=2)
    assert weighted.estimate.equal(plainly.estimate)


def test_which_predictions_are_nudged(table: StepTable) -> None:
    """Those in the mean, before they drive the next pass; the mean itself, once, made of predictions that were not."""
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    seen: list[Tensor] = []

    def nudge(prediction: Tensor) -> Tensor:
        seen.append(prediction)
        return prediction / 2

    solution, asked, told = renoised(table, z_s, noise, torch.tanh, 3, (0.0, 1.0, 1.0, 0.0), nudge)
    assert asked[1].equal(table.backward(STEP, z_s, told[0], noise)), "pass 1 does not enter the mean"
    assert asked[2].equal(table.backward(STEP, z_s, told[1] / 2, noise))
    assert asked[3].equal(table.backward(STEP, z_s, told[2] / 2, noise))
    mean = (told[1] + told[2]) / 2
    torch.testing.assert_close(solution.estimate, table.backward(STEP, z_s, mean / 2, noise))
    assert len(seen) == 3
    assert seen[0].equal(told[1])
    assert seen[1].equal(told[2])
    torch.testing.assert_close(seen[2], mean)


def test_nothing_is_nudged_without_weights(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    nudged, _, _ = renoised(table, z_s, noise, torch.tanh, 2, None, torch.zeros_like)
    plainly, _, _ = renoised(table, z_s, noise, torch.tanh, 2)
    assert nudged.estimate.equal(plainly.estimate)


# --- Anderson acceleration, on maps z -> g(z) played by a "network" that answers with g ---


def mapped(
    solver: Callable[..., Any], g: Callable[[Tensor], Tensor], start: Tensor, passes: int, tol: float = 0.0
) -> tuple[Solution, list[Tensor]]:
    """The solution and the points asked about, where reversing by a prediction is that prediction."""
    solution, asked, _ = run(solver, lambda m: m, start, g, passes, tol)
    return solution, asked


def affine(seed: int, eigenvalues: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """z -> M z + c for each image, M symmetric with these eigenvalues [batch, number], and its fixed point."""
    batch, numbers = eigenvalues.shape
    basis, _ = torch.linalg.qr(white(seed, batch, numbers, numbers))
    matrix = basis @ torch.diag_embed(eigenvalues) @ basis.mT
    offset = white(seed + 1, batch, numbers)
    fixed = torch.linalg.solve(torch.eye(numbers, dtype=torch.float64) - matrix, offset)
    return lambda z: (matrix @ z[..., None])[..., 0] + offset, fixed


def distance(z: Tensor, other: Tensor) -> Tensor:
    length: Tensor = (z - other).flatten(1).norm(dim=1)
    return length


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("passes", [1, 2, 3, 5, 8])
def test_anderson_is_no_worse_than_renoising_where_that_contracts(seed: int, passes: int) -> None:
    eigenvalues = 0.95 * torch.rand(3, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    g, fixed = affine(10 * seed, eigenvalues)
    plain, _ = mapped(renoise, g, torch.zeros(3, 30, dtype=torch.float64), passes)
    fast, _ = mapped(anderson, g, torch.zeros(3, 30, dtype=torch.float64), passes)
    assert fast.passes == plain.passes == passes
    assert (distance(fast.estimate, fixed) <= distance(plain.estimate, fixed) * (1 + 1e-9)).all()
    if passes >= 5:
        assert (distance(fast.estimate, fixed) < 0.7 * distance(plain.estimate, fixed)).all()


def test_anderson_solves_few_directions_in_few_passes_even_where_renoising_flies_apart() -> None:
    """Three eigenvalues, one of them beyond 1: done when the combination has three differences to work with."""
    g, fixed = affine(0, torch.tensor([0.9, 1.8, -0.7], dtype=torch.float64).repeat_interleave(8).expand(2, 24))
    start = torch.zeros(2, 24, dtype=torch.float64)
    plain, _ = mapped(renoise, g, start, 5)
    fast, _ = mapped(anderson, g, start, 5)
    assert (distance(plain.estimate, fixed) > distance(start, fixed)).all()
    assert (distance(fast.estimate, fixed) < 1e-3 * distance(start, fixed)).all()


@pytest.mark.parametrize("rate", [0.8, 6.0])
def test_the_first_combination_by_hand(rate: float) -> None:
    """Two residuals cancel best at the secant's foot; the step from there is the best there was one pass before."""
    start = white(0, 2, 20)
    rates = rate * (1 + 0.1 * white(1, 2, 20))
    _, asked = mapped(anderson, lambda z: rates * z, start, 3)
    (z_0, z_1, z_2), (f_0, f_1) = asked, [(rates - 1) * z for z in asked[:2]]
    torch.testing.assert_close(z_1, rates * start)
    shortened = f_0 - f_1
    share = (-(f_1 * shortened).sum(1) / shortened.square().sum(1))[:, None]
    beta = ((f_0 * shortened).sum(1) / shortened.square().sum(1)).clamp(0.25, 2.0)[:, None]
    assert (beta == 0.25).all() == (rate > 1), "the way back from a step that overshot is not followed"
    by_hand = share * (z_0 + beta * f_0) + (1 - share) * (z_1 + beta * f_1)
    torch.testing.assert_close(z_2, by_hand, rtol=0, atol=1e-4)


def test_every_neighbourhood_of_a_map_has_a_step_of_its_own() -> None:
    """Where half of a map answers half as strongly as the rest, no one length of step suits both."""
    rates = torch.full((1, 4, 12, 24), 0.0, dtype=torch.float64)
    rates[..., 12:] = 0.5
    fixed = white(0, 1, 4, 12, 24)

    def missed(shape: tuple[int, ...]) -> float:
        aim, share = fixed.reshape(shape), rates.reshape(shape)
        solution, _ = mapped(anderson, lambda z: aim + share * (z - aim), torch.zeros_like(aim), 2)
        return float((solution.estimate - aim).norm())

    assert missed((1, 4, 12, 24)) < 0.95 * missed((1, 48, 24))


@pytest.mark.parametrize("seed", range(3))
def test_anderson_keeps_the_best_point_among_those_it_combines(seed: int) -> None:
    """On a map that is all folds, where no combination helps for long: damped, points stay near the best one."""
    solution, asked = mapped(anderson, lambda z: 3 * torch.sin(5 * z), white(seed, 4, 20), 40)
    best = solution.residuals.min(0)
    assert (best.values < solution.residuals[0]).sum() >= 3
    for image in range(4):
        nearest = asked[int(best.indices[image])][image]
        assert solution.best[image].equal(nearest)
        assert (solution.estimate[image] - nearest).norm() < 10 * nearest.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_anderson_stays_put_at_a_solution(dtype: torch.dtype) -> None:
    """Residuals of 0, and parallel ones, have no unique combination."""
    fixed = white(0, 2, 10).to(dtype)
    solution, asked = mapped(anderson, lambda z: 0.5 * (z + fixed), fixed, 7)
    for z in (*asked, solution.estimate):
        torch.testing.assert_close(z, fixed)
    away, _ = mapped(anderson, lambda z: 0.5 * (z + fixed), fixed + 1, 9)
    assert (distance(away.estimate, fixed) < 1e-5).all()


def test_a_batch_is_its_images_one_by_one() -> None:
    start = white(0, 3, 20)
    together, _ = mapped(anderson, lambda z: 2 * torch.tanh(z), start, 8, tol=0.05)
    for image in range(3):
        alone, _ = mapped(anderson, lambda z: 2 * torch.tanh(z), start[image : image + 1], 8, tol=0.05)
        torch.testing.assert_close(together.estimate[image], alone.estimate[0])
        torch.testing.assert_close(together.residuals[: alone.passes, image], alone.residuals[:, 0])


# --- when to stop ---


@pytest.mark.parametrize("solver", [renoise, anderson])
def test_images_within_the_tolerance_no_longer_change(solver: Callable[..., Any]) -> None:
    rates, folds = torch.tensor([[[0.1], [0.5], [0.99]], [[0.1], [0.1], [1.5]]], dtype=torch.float64)
    start = 1 + white(0, 3, 20).abs()

    def g(z: Tensor) -> Tensor:
        image: Tensor = rates * z + 1 + folds * torch.sin(3 * z)
        return image

    tol = 1e-2
    solution, asked = mapped(solver, g, start, 6, tol)
    assert solution.passes == 6, "the last image is never done"
    shares = torch.stack([distance(g(z), z) / z.norm(dim=1) for z in asked])
    counted = [
        int((shares[:, image] > tol).long().cumprod(0).sum()) + 1 for image in range(3)
    ]  # until the first that is
    assert counted[0] < 6
    for image, passes in enumerate(counted):
        alone, _ = mapped(solver, lambda z: g(z.expand(3, -1))[image : image + 1], start[image : image + 1], 6, tol)  # noqa: B023
        assert alone.passes == min(passes, 6)
        torch.testing.assert_close(solution.estimate[image], alone.estimate[0])
        torch.testing.assert_close(solution.best[image], alone.best[0])
        torch.testing.assert_close(
            solution.residuals[alone.passes - 1 :, image], alone.residuals[-1].expand(7 - alone.passes)
        )


def test_a_batch_that_is_done_asks_no_more() -> None:
    solution, _ = mapped(renoise, lambda z: 0.01 * z + 1, torch.ones(2, 5, dtype=torch.float64), 50, tol=1e-3)
    assert solution.passes == 2
    assert math.isclose(float(solution.residuals[1, 0]), 1e-4, rel_tol=0.1)
