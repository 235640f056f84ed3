"""The bench: its rivals' algebra on closed-form denoisers, what it asks of them, and that its records can be read."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import pictures
from benchmarks.convergence import contraction
from benchmarks.flow import timesteps
from benchmarks.rivals import Linearised, blended, damped, edit_friendly, gnri
from renoise.core.loop import drive, invert, replay
from renoise.core.query import Query
from renoise.core.settings import Region, Settings
from renoise.core.toy import Toy
from tests.helpers.toys import SHAPE, TABLES, clean, noises, replayed, toy, white


def test_edit_friendly_noise_replays_exactly_and_passes_through_the_noised_pictures() -> None:
    table = TABLES["ddim-eta"]()
    assert (table.n != 0).all()
    denoise, drawn = toy(table), noises(table)
    found = drive(edit_friendly(table, clean(), drawn), denoise)
    assert found.passes == len(table)
    assert found.z_T.equal(table.noisy(0, clean(), drawn[0]))
    assert torch.allclose(replayed(table, denoise, found), clean(), atol=1e-10)
    assert found.noises is not None
    assert not torch.allclose(found.noises[0], drawn[0], atol=0.1), "the noise is what leads on, not what was drawn"
    rms = found.noises[3].flatten(1).square().mean(1).sqrt()
    assert torch.allclose(found.steps[3].noise_travel, rms)  # type: ignore[arg-type]


def test_edit_friendly_inversion_leaves_a_step_without_noise_alone() -> None:
    table = TABLES["euler"]()
    found = drive(edit_friendly(table, clean(), noises(table)), toy(table))
    assert found.passes == 3
    assert [step.passes for step in found.steps] == [1, 1, 1, 0]


@pytest.mark.parametrize("solver", [blended, damped])
@pytest.mark.parametrize("name", ["ddim", "euler", "flow"])
def test_other_iterations_reach_the_fixed_point_of_renoising(name: str, solver: Any) -> None:
    table = TABLES[name]().tail(3)
    denoise, drawn = toy(table, name), noises(table)
    renoised = drive(invert(table, clean(), settings=Settings((Region(iterations=99),)), noises=drawn), denoise)
    settings = Settings((Region(iterations=299),), solver=solver)
    found = drive(invert(table, clean(), settings=settings, noises=drawn), denoise)
    assert found.passes == 3 * 300
    assert torch.allclose(found.z_T, renoised.z_T, rtol=1e-6, atol=1e-6)
    assert torch.allclose(replayed(table, denoise, found), clean(), atol=1e-6)


def test_aidi_averages_the_last_two_images_of_the_map() -> None:
    solver = blended(lambda m: 3 * m, torch.tensor([[1.0]]))
    asked = [next(solver)] + [solver.send(torch.tensor([[m]])) for m in (2.0, 4.0, 10.0)]
    assert [z.item() for z in asked] == [1, 6, (6 + 12) / 2, (12 + 30) / 2]


def test_damping_goes_half_the_way() -> None:
    solver = damped(lambda m: 3 * m, torch.tensor([[1.0]]))
    asked = [next(solver)] + [solver.send(torch.tensor([[m]])) for m in (2.0, 4.0)]
    assert [z.item() for z in asked] == [1, (1 + 6) / 2, (3.5 + 12) / 2]


@pytest.mark.parametrize("solver", [blended, damped])
def test_other_iterations_converge_where_renoising_circles(solver: Any) -> None:
    """g(z) = 2 - 1.2 z has slope -1.2: renoising runs away from the solution 10 / 11, these do not."""

    def reverse(m: Tensor) -> Tensor:
        return 2 - 1.2 * m

    points = solver(reverse, torch.zeros(1, 1))
    z = next(points)
    for _ in range(200):
        z = points.send(z)
    assert z.item() == pytest.approx(2 / 2.2, abs=1e-5)


def test_linearised_answers_are_predictions_and_transposed_jacobian_products() -> None:
    table = TABLES["euler"]()
    z, cotangent, direction = (white(seed, *SHAPE) for seed in (1, 2, 3))
    m, pulled = Linearised(z, 1, cotangent=lambda m: m * cotangent).answer(toy(table)).chunk(2)
    assert not m.requires_grad
    assert torch.equal(m, toy(table)(Query(z, 1)))
    cotangent = m * cotangent
    h = 1e-6
    moved = toy(table)(Query(z + h * direction, 1)) - toy(table)(Query(z - h * direction, 1))
    assert (pulled * direction).sum().item() == pytest.approx((moved / (2 * h) * cotangent).sum().item(), rel=1e-5)


def test_gnri_without_prior_lowers_the_residual() -> None:
    table = TABLES["ddim"]()
    found = drive(gnri(table, clean(), None, passes=4, prior=0.0, flattest=0.1), toy(table))
    assert found.passes == 4 * len(table)
    for step in found.steps:
        assert (step.residuals[-1] < 0.5 * step.residuals[0]).all(), step


def test_gnri_takes_newton_steps_on_one_number() -> None:
    """With one number, F = |z - g| is straight on either side, so one step solves a straight map exactly."""
    table = TABLES["ddim"]().tail(1)
    denoise = Toy(table, white(5, 1, 1, 1), (0,), spread=1.5)
    found = drive(gnri(table, white(6, 1, 1), None, passes=1, prior=0.0, flattest=0.1), denoise)
    assert torch.allclose(drive(replay(table, found.z_T), denoise), white(6, 1, 1), atol=1e-12)


def test_gnri_counts_one_pass_per_evaluation_and_its_prior_pulls_towards_the_forward_process() -> None:
    table = TABLES["euler"]()
    counts: list[int] = []
    ends = {}
    for prior in (0.0, 0.1):
        queries = gnri(table, clean(), noises(table), passes=2, prior=prior, flattest=0.1)
        ends[prior] = drive(queries, toy(table), counts.append)
    assert counts == [1] * 8 * 2
    assert not torch.allclose(ends[0.0].z_T, ends[0.1].z_T)


def test_contraction_is_the_factor_of_a_linear_network_at_every_level() -> None:
    table = TABLES["ddim"]()
    for step in (0, len(table) - 1):
        pull = abs(table.b[step] / table.a[step]).item()
        found = contraction(table, lambda query: 0.7 * query.z, step, white(3, *SHAPE).float())
        torch.testing.assert_close(found, torch.full((SHAPE[0],), 0.7 * pull), rtol=1e-3, atol=0)


def test_a_flow_matching_latent_is_shown_at_the_timestep_of_its_noise() -> None:
    rows = TABLES["flow"]()
    levels = torch.linspace(0.999, 0.005, 1000, dtype=torch.float64)
    at = timesteps(rows, levels)
    inside = [step for step in range(len(rows)) if 0 < at[step] < 999]
    assert len(inside) > 1
    for step in inside:
        level, s = levels[at[step].round().long()], rows.sigma[step]
        assert (level / (1 - level)).sqrt().item() == pytest.approx(((1 - s) / s).item(), rel=0.02)


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("validation", "f7445fb320897f63"),
        ("test", "9d025178c9e5505a"),
        ("artist", "3d799242342c8d6b"),
    ],
)
def test_pictures_of_64_pixels_are_to_the_bit_those_on_which_the_first_models_were_measured(
    split: str, digest: str
) -> None:
    found = (pictures.load(split, 64).pixels * 255).round().to(torch.uint8)
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == digest


def test_smaller_pictures_are_rounded_means_and_a_side_must_divide_that_of_the_sheets() -> None:
    large = torch.arange(2 * 3 * 16, dtype=torch.uint8).reshape(2, 3, 4, 4)
    assert pictures.reduced(large, 4).equal(large)
    means = large.double().mean((2, 3))  # all half way between two bytes
    assert (pictures.reduced(large, 1)[..., 0, 0].double() - means).abs().eq(0.5).all()
    large[:, :, 0, 0] += 1  # and now a bit above
    assert pictures.reduced(large, 1)[..., 0, 0].equal(means.ceil().byte())
    with pytest.raises(ValueError, match=r"side=48: .* divide 128, such as 64"):
        pictures.load("validation", 48)
