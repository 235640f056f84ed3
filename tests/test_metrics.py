"""Scores against closed forms, and summaries that do not hide failures."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from renoise import metrics
from renoise.metrics import Summary, interval, psnr, ssim


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_known_difference_per_picture() -> None:
    a = torch.full((3, 3, 5, 7), 0.5)
    b = a + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    scores = psnr(a, b)
    assert scores.shape == (3,)
    assert scores.dtype == torch.float64
    assert scores.tolist() == pytest.approx([20, 40, math.inf], abs=1e-4)
    assert torch.equal(psnr(b, a), scores)


def test_psnr_weighs_every_pixel_alike() -> None:
    a, b = pictures(2, 3, 6, 10), pictures(2, 3, 6, 10, seed=1)
    errors = ((a - b).double() ** 2).numpy().mean(axis=(1, 2, 3))
    assert psnr(a, b).tolist() == pytest.approx((-10 * np.log10(errors)).tolist())


def test_scores_of_half_precision_are_computed_in_full() -> None:
    a = pictures(1, 3, 64, 64).half()
    b = (a.float() + 0.001).clamp(0, 1)
    assert psnr(a.float(), b).item() == pytest.approx(psnr(a, b).item()) == pytest.approx(60, abs=0.1)


def test_ssim_is_that_of_scikit_image_per_picture() -> None:
    from skimage.metrics import structural_similarity

    a, b = pictures(2, 3, 20, 33), pictures(2, 3, 20, 33, seed=1)
    scores = ssim(a, b)
    assert scores.shape == (2,)
    assert scores.dtype == torch.float64
    for score, x, y in zip(scores, a, b, strict=True):
        channels = [
            structural_similarity(x[c].double().numpy(), y[c].double().numpy(), data_range=1.0) for c in range(3)
        ]
        assert score.item() == pytest.approx(np.mean(channels))
    assert ssim(a, a).tolist() == [1, 1]


@pytest.mark.parametrize("side", [3, 4, 6, 7, 8])
def test_ssim_of_small_pictures(side: int) -> None:
    a = pictures(1, 3, side, 12)
    assert ssim(a, a).item() == pytest.approx(1)
    assert ssim(a, 1 - a).item() < 0


def test_ssim_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(ImportError, match=r'pip install "renoise\[bench\]"'):
        ssim(pictures(1, 3, 8, 8), pictures(1, 3, 8, 8))


@pytest.mark.parametrize("score", [psnr, ssim])
def test_scores_refuse_what_they_cannot_compare(score: object) -> None:
    assert callable(score)
    a = pictures(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"one shape, not \[2, 3, 8, 8\], \[1, 3, 8, 8\]"):
        score(a, a[:1])  # would broadcast
    with pytest.raises(ValueError, match="one shape"):
        score(a[0], a[0])
    for wrong in (a * 255, a * 2 - 1, torch.full_like(a, torch.nan)):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            score(a, wrong)
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            score(wrong, a)


def test_ssim_refuses_slivers() -> None:
    with pytest.raises(ValueError, match="use psnr"):
        ssim(pictures(1, 3, 2, 40), pictures(1, 3, 2, 40))


def test_interval_is_that_of_normal_theory_for_many_values() -> None:
    values = np.random.default_rng(0).normal(20, 3, 400)
    low, high = interval(values, seed=1)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)
    narrow = interval(values, seed=1, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_depends_on_its_seed_alone() -> None:
    values = [1.0, 2.0, 5.0, 11.0]
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    assert interval(values, seed=1, draws=100) == interval(torch.tensor(values), seed=1, draws=100)
    assert interval(values, seed=1, draws=100) != interval(values, seed=2, draws=100)
    assert np.random.random() == expected  # the global state was not touched


def test_interval_with_perfect_scores_and_of_one_value() -> None:
    low, high = interval([30.0, 31.0, 32.0, math.inf], draws=1000)
    assert 30 <= low < 33
    assert high == math.inf
    assert interval([math.inf, math.inf], draws=10) == (math.inf, math.inf)
    assert interval([7.0], draws=10) == (7, 7)


def test_summary_shows_the_low_end() -> None:
    values = [float(value) for value in range(1, 101)]
    assert Summary.of(values) == Summary(count=100, mean=50.5, median=50.5, p5=5, worst=1)
    assert Summary.of([20.0, math.inf, math.inf]) == Summary(count=3, mean=math.inf, median=math.inf, p5=20, worst=20)
    assert Summary.of(torch.tensor([3.0])) == Summary(1, 3, 3, 3, 3)


def test_no_summary_of_nothing_or_of_nan() -> None:
    for summarise in (Summary.of, interval):
        with pytest.raises(ValueError, match="at least one score"):
            summarise([])
        with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
            summarise([1.0, math.nan])
    with pytest.raises(ValueError, match="level 95"):
        interval([1.0], level=95)
    with pytest.raises(ValueError, match="draws 0"):
        interval([1.0], draws=0)


def test_names_are_sorted() -> None:
    assert metrics.__all__ == sorted(metrics.__all__)
    assert all(hasattr(metrics, name) for name in metrics.__all__)
