"""Predictions on a line in the angle of the noise level come out exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from renoise.core.extrapolation import extrapolated
from renoise.core.table import StepTable


def table(alpha: list[float], sigma: list[float]) -> StepTable:
    one = torch.ones(len(alpha), dtype=torch.float64)
    alphas, sigmas = (torch.tensor(level, dtype=torch.float64) for level in (alpha, sigma))
    return StepTable(one, one, one, 0 * one, one, alphas, sigmas, 1000)


def test_a_line_in_the_angle_is_continued_whatever_the_scale_of_latents() -> None:
    sigma = [4.0, 1.5, 0.2]
    slope, offset = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def line(step: int) -> Tensor:
        value: Tensor = offset + slope * torch.atan(torch.tensor(sigma[step], dtype=torch.float64))
        return value

    exploding = table([1.0] * 3, sigma)
    preserving = table([(1 + s**2) ** -0.5 for s in sigma], [s * (1 + s**2) ** -0.5 for s in sigma])
    for rows in (exploding, preserving):
        torch.testing.assert_close(extrapolated(rows, 0, [line(2), line(1)]), line(0))
        assert extrapolated(rows, 1, [line(2)]).equal(line(2))


def test_pure_noise_is_a_level_like_any_other() -> None:
    rows = table([0.0, 0.5, 0.9], [1.0, 0.5, 0.1])
    ones = torch.ones(1, 2, dtype=torch.float64)
    assert extrapolated(rows, 0, [ones, 2 * ones]).isfinite().all()
