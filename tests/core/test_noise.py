"""Matched and independent noise: variance, whiteness, and the sum that the step makes of them."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from renoise.core.noise import independent, matched
from renoise.core.table import StepTable
from renoise.pipelines.measure import measure

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 64, 64)
TOLERANCE = 5 / math.sqrt(2 * 4 * 64 * 64)  # five deviations of a mean over so many numbers


def table(kind: str, prediction: str, eta: float = 0.0, **config: Any) -> StepTable:
    scheduler = getattr(diffusers, kind)(**BETAS, prediction_type=prediction, **config)
    scheduler.set_timesteps(4)
    return measure(scheduler, eta=eta)


DDIM: dict[str, Any] = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
TABLES = {
    "DDIM, epsilon": table("DDIMScheduler", "epsilon", 1.0, **DDIM),
    "DDIM, v": table("DDIMScheduler", "v_prediction", 1.0, **DDIM),
    "DDIM, sample": table("DDIMScheduler", "sample", 0.5, **DDIM),
    "Euler, epsilon": table("EulerAncestralDiscreteScheduler", "epsilon", timestep_spacing="trailing"),
    "Euler, v": table("EulerAncestralDiscreteScheduler", "v_prediction", timestep_spacing="trailing"),
    "LCM, epsilon": table("LCMScheduler", "epsilon", clip_sample=False),
}


def white(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def latents(rows: StepTable, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """z_0, the noise e_s of the less noisy latent, and that latent, as the forward process makes it."""
    z_0, e_s = 3 * white(0) + 1, white(1)
    return z_0, e_s, rows.noisy(step + 1, z_0, e_s)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_matched_noise_and_what_it_leaves_are_white_and_make_up_the_noise_at_hand(name: str, step: int) -> None:
    rows = TABLES[name]
    z_0, e_s, z_s = latents(rows, step)
    eps, e_t = matched(rows, step, z_s, z_0, white(2))
    n, sigma_s = rows.n[step].item(), rows.sigma[step + 1].item()
    d = math.sqrt(max(sigma_s**2 - n**2, 0))
    torch.testing.assert_close(d * e_t + n * eps, sigma_s * e_s, rtol=0, atol=1e-4 * sigma_s)
    for noise in (eps, e_t):
        assert noise.mean().item() == pytest.approx(0, abs=TOLERANCE)
        assert noise.square().mean().item() == pytest.approx(1, abs=2 * TOLERANCE)
        for axis in (-1, -2):
            assert (noise * noise.roll(1, axis)).mean().item() == pytest.approx(0, abs=TOLERANCE)
    assert (eps * e_t).mean().item() == pytest.approx(0, abs=TOLERANCE)
    assert (e_t * z_0).mean().item() == pytest.approx(0, abs=5 * TOLERANCE)


@pytest.mark.parametrize("name", ["DDIM, epsilon", "Euler, epsilon"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_with_a_perfect_noise_prediction_the_step_arrives(name: str, step: int) -> None:
    """d is then a sigma_t + b: alpha_t z_0 + sigma_t e_t solves the step if the network says e_t."""
    rows = TABLES[name]
    z_0, _, z_s = latents(rows, step)
    eps, e_t = matched(rows, step, z_s, z_0, white(2))
    torch.testing.assert_close(rows.forward(step, rows.noisy(step, z_0, e_t), e_t, eps), z_s, rtol=0, atol=1e-3)


def test_independent_noise_is_as_drawn_and_leaves_what_a_small_d_does_not_blow_up() -> None:
    rows = TABLES["Euler, epsilon"]
    z_0, e_s, z_s = latents(rows, 0)
    eps, e_t = independent(rows, 0, z_s, z_0, white(2))
    assert eps.equal(white(2))
    n, sigma_s = rows.n[0].item(), rows.sigma[1].item()
    assert e_t.square().mean().item() == pytest.approx(1 + (n / sigma_s) ** 2, abs=4 * TOLERANCE)
    asked = e_t * sigma_s / math.sqrt(sigma_s**2 - n**2)
    assert asked.std().item() > 3, "what the published choice asks of z_t"
    torch.testing.assert_close(math.sqrt(sigma_s**2 - n**2) * asked + n * eps, sigma_s * e_s)


def test_nearest_the_image_details_are_enlarged_where_the_network_would_give_them_up() -> None:
    """As much as undoes the estimate of a Gaussian, at little noise and at much; what is smooth stays."""
    column = torch.arange(64) % 2 * 2.0 - 1
    stripes = column.double().expand(SHAPE)
    for name in ("DDIM, v", "Euler, epsilon"):
        rows = TABLES[name]
        alpha, sigma = rows.alpha[-1].item(), rows.sigma[-1].item()
        _, e_t = matched(rows, 3, stripes, stripes, torch.zeros_like(stripes))
        grown = (rows.noisy(3, stripes, e_t) / alpha)[..., 32] / stripes[..., 32] - 1
        share = sigma**2 / (alpha**2 + sigma**2)
        torch.testing.assert_close(grown, torch.full_like(grown, 2.4 * share * 2 / 3 * 2), rtol=0.35, atol=0)
        assert (grown > 0).all()


@pytest.mark.parametrize("rule", [independent, matched])
def test_the_step_nearest_the_image_and_steps_without_noise(rule: Any) -> None:
    rows = TABLES["Euler, epsilon"]
    flat = torch.ones(SHAPE, dtype=torch.float64)
    eps, e_t = rule(rows, 3, flat, flat, white(2))
    assert eps.equal(white(2))
    torch.testing.assert_close(e_t, 0.75 * white(2))
    assert all(noise.equal(white(2)) for noise in rule(rows.tail(1), 0, flat, white(0), white(2)))
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
    scheduler.set_timesteps(4)
    rows = measure(scheduler)
    z_0, e_s, z_s = latents(rows, 1)
    torch.testing.assert_close(rule(rows, 1, z_s, z_0, white(2)), (white(2), e_s))


def test_latents_that_are_no_maps_start_with_noise_alone() -> None:
    rows = TABLES["Euler, epsilon"]
    packed, xi = white(0).flatten(2).mT, white(2).flatten(2).mT
    torch.testing.assert_close(matched(rows, 3, packed, packed, xi)[1], 0.75 * xi)
