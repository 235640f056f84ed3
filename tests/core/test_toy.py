"""The closed-form denoiser against the density that it belongs to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from renoise.core.query import Query
from renoise.core.table import StepTable
from renoise.core.toy import Toy


def table(alpha: float, sigma: float) -> StepTable:
    one = torch.ones(1, dtype=torch.float64)
    return StepTable(one, one, one, 0 * one, one, alpha * one, sigma * one, 1000)


def white(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.8, 0.6), (1.0, 3.0), (0.3, 0.7)])
def test_noise_is_the_score_of_the_mixture(alpha: float, sigma: float) -> None:
    """Tweedie: E[eps] = -sigma d log p(z) / dz."""
    means, spread = white(0, 2, 3, 2, 3, 4), 0.7
    z = white(1, 2, 2, 3, 4).requires_grad_()
    offset = (z[:, None] - alpha * means[[1, 0]]).flatten(2)
    log_density = torch.logsumexp(-offset.square().sum(2) / (2 * (alpha**2 * spread**2 + sigma**2)), 1)
    (score,) = torch.autograd.grad(log_density.sum(), z)
    eps = Toy(table(alpha, sigma), means, (1, 0), spread)(Query(z.detach(), 0))
    torch.testing.assert_close(eps, -sigma * score, rtol=1e-12, atol=1e-12)


def test_the_four_predictions_are_one_statement() -> None:
    alpha, sigma = 0.4, 1.3
    means, z = white(0, 1, 3, 2, 3, 4), white(1, 1, 2, 3, 4)
    eps, v, z_0, flow = (
        Toy(table(alpha, sigma), means, (0,), prediction=kind)(Query(z, 0))
        for kind in ("epsilon", "v", "sample", "flow")
    )
    torch.testing.assert_close(alpha * z_0 + sigma * eps, z)
    torch.testing.assert_close(v, (alpha * eps - sigma * z_0) / math.hypot(alpha, sigma))
    torch.testing.assert_close(flow, eps - z_0)


def test_each_row_meets_its_prompt() -> None:
    """Blocks of the whole batch: rows 0, 2 belong to the first image and rows 1, 3 to the second."""
    means, z = white(0, 3, 1, 2, 3, 4), white(1, 1, 2, 3, 4).expand(4, -1, -1, -1)
    toy = Toy(table(0.8, 0.6), means, (2, 0), spread=0.0, prediction="sample")
    torch.testing.assert_close(toy(Query(z, 0, scenes=(0, 0))), means[[2, 0, 2, 0], 0])
    with pytest.raises(ValueError, match="4 latents in 1 blocks for 2 prompts"):
        toy(Query(z, 0))
