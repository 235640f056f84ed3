"""Renoising on denoisers whose step can be solved by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from renoise.inversion import Query
from renoise.schedule import StepTable
from renoise.solvers import Solution, renoise
from renoise.toy import Toy

STEP = 1


def white(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module", name="table")
def made_table() -> StepTable:
    """Five steps of DDIM with fresh noise."""
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    scheduler.set_timesteps(5)
    return StepTable.measure(scheduler, eta=0.5)


def solve(
    table: StepTable,
    z_s: Tensor,
    noise: Tensor,
    network: Callable[[Tensor], Tensor],
    iterations: int,
    weights: tuple[float, ...] | None = None,
    nudge: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Solution, list[Tensor], list[Tensor]]:
    """The solution, the latents asked about and the predictions given."""
    solver = renoise(table, STEP, z_s, noise, iterations=iterations, weights=weights, nudge=nudge)
    asked, told = [next(solver)], []
    while True:
        told.append(network(asked[-1]))
        try:
            asked.append(solver.send(told[-1]))
        except StopIteration as stop:
            solution: Solution = stop.value
            return solution, asked, told


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
    solution, _, _ = solve(table, z_s, noise, gaussian(table, mean, spread), iterations=30)
    errors = []
    for iterations in range(4):
        shorter, _, _ = solve(table, z_s, noise, gaussian(table, mean, spread), iterations)
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
    solution, asked, told = solve(table, z_s, noise, torch.tanh, iterations=0)
    assert len(asked) == 1
    assert asked[0].equal(z_s)
    assert solution.estimate.equal(table.backward(STEP, z_s, told[0], noise))


def test_each_pass_asks_at_the_estimate_of_the_last(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    solution, asked, told = solve(table, z_s, noise, torch.tanh, iterations=3)
    for k in range(3):
        assert asked[k + 1].equal(table.backward(STEP, z_s, told[k], noise))
    assert solution.estimate.equal(table.backward(STEP, z_s, told[3], noise))
    for k, (before, after) in enumerate(zip(asked, [*asked[1:], solution.estimate], strict=True)):
        rms = (after - before).square().mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(solution.residuals[k], rms)


def test_weights_average_the_predictions_and_are_normalised(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    solution, asked, told = solve(table, z_s, noise, torch.tanh, iterations=3, weights=(0.0, 1.0, 3.0, 4.0))
    mean = (told[1] + 3 * told[2] + 4 * told[3]) / 8
    torch.testing.assert_close(solution.estimate, table.backward(STEP, z_s, mean, noise))
    _, plainly, _ = solve(table, z_s, noise, torch.tanh, iterations=3)
    assert all(one.equal(other) for one, other in zip(asked, plainly, strict=True))
    move = (solution.estimate - asked[3]).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(solution.residuals[3], move)


def test_the_only_weight_on_the_last_pass_is_no_averaging(table: StepTable) -> None:
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    weighted, _, _ = solve(table, z_s, noise, torch.tanh, iterations=2, weights=(0.0, 0.0, 5.0))
    plainly, _, _ = solve(table, z_s, noise, torch.tanh, iterations=2)
    assert weighted.estimate.equal(plainly.estimate)


def test_which_predictions_are_nudged(table: StepTable) -> None:
    """Those in the mean, before they drive the next pass; the mean itself, once, made of predictions that were not."""
    z_s, noise = white(0, 2, 3, 4, 6), white(1, 2, 3, 4, 6)
    seen: list[Tensor] = []

    def nudge(prediction: Tensor) -> Tensor:
        seen.append(prediction)
        return prediction / 2

    solution, asked, told = solve(table, z_s, noise, torch.tanh, 3, (0.0, 1.0, 1.0, 0.0), nudge)
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
    nudged, _, _ = solve(table, z_s, noise, torch.tanh, 2, None, torch.zeros_like)
    plainly, _, _ = solve(table, z_s, noise, torch.tanh, 2)
    assert nudged.estimate.equal(plainly.estimate)
