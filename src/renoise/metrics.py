"""Scores that compare images with images, and summaries of many scores.

Images are float tensors [batch, channels, height, width] in [0, 1].  Scores are float64 on the CPU, one per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Summary", "interval", "psnr", "ssim"]

Values = Sequence[float] | npt.NDArray[np.float64] | Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1: -10 log10(mean squared difference).

    Returns:
        One score per image [batch], inf for identical images.

    Raises:
        ValueError: the shapes differ, or values lie outside [0, 1] or are NaN.
    """
    a, b = _pair(a, b)
    return -10 * torch.log10((a - b).square().flatten(1).mean(dim=1))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity by scikit-image, with a uniform 7x7 window, data range 1 and the mean over channels.

    Images with a side below 7 pixels use the largest odd window that fits, down to 3x3.

    Returns:
        One score per image [batch], 1 for identical images.

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: the shapes differ, values lie outside [0, 1] or are NaN, or a side is below 3 pixels.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError('ssim needs scikit-image: pip install "renoise[bench]"') from error
    a, b = _pair(a, b)
    side = min(a.shape[-2:])
    if side < 3:
        raise ValueError(f"ssim needs sides of 3 pixels or more, and the images are {list(a.shape[-2:])}: use psnr")
    window = min(7, side - 1 + side % 2)
    scores = [
        float(structural_similarity(x.numpy(), y.numpy(), win_size=window, data_range=1.0, channel_axis=0))
        for x, y in zip(a, b, strict=True)
    ]
    return torch.tensor(scores, dtype=torch.float64)


def interval(values: Values, seed: int = 0, *, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """Confidence interval of the mean, by the percentile bootstrap.

    Args:
        values: the scores, 1 or more.
        seed: seed of the resampling.  The global random state is not used.
        level: confidence, between 0 and 1.
        draws: number of resamples, 1 or more.

    Returns:
        (low, high) in the unit of the scores.

    Raises:
        ValueError: there are no values, some are NaN, or `level` or `draws` is out of its range.
    """
    array = _array(values)
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not a probability between 0 and 1, such as 0.95")
    if draws < 1:
        raise ValueError(f"draws {draws} must be at least 1; 10000 is usual")
    rng = np.random.default_rng(seed)
    # one resample at a time, because thousands of values times thousands of draws do not fit in memory
    means = np.array([rng.choice(array, size=array.size).mean() for _ in range(draws)])
    # a method without interpolation, which an infinite mean (identical pictures) would turn into NaN
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


@dataclass(frozen=True)
class Summary:
    """Summary of many scores for which higher is better.

    A mean can hide failures, so the low end of the scores is part of the summary.

    Attributes:
        count: number of scores.
        mean: mean of the scores.
        median: median of the scores.
        p5: 5th percentile, the lowest score such that at least 5 % of the scores are equal or lower.
        worst: lowest score.
    """

    count: int
    mean: float
    median: float
    p5: float
    worst: float

    @classmethod
    def of(cls, values: Values) -> Summary:
        """Summarise scores.  Raises ValueError if there are none or some are NaN."""
        array = _array(values)
        return cls(
            count=array.size,
            mean=float(array.mean()),
            median=float(np.median(array)),
            p5=float(np.quantile(array, 0.05, method="inverted_cdf")),
            worst=float(array.min()),
        )


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU, checked."""
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(
            f"pass two batches [batch, channels, height, width] of one shape, not {list(a.shape)}, {list(b.shape)}"
        )
    for pixels in (a, b):
        # written such that NaN fails too; 1e-3 allows for rounding in a decoder's output
        if pixels.numel() == 0 or not bool(((pixels >= -1e-3) & (pixels <= 1 + 1e-3)).all()):
            raise ValueError(
                "pixels must be floats in [0, 1] and not NaN: divide bytes by 255, convert [-1, 1] by x / 2 + 0.5"
            )
    return a.detach().to("cpu", torch.float64), b.detach().to("cpu", torch.float64)


def _array(values: Values) -> npt.NDArray[np.float64]:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"pass a list of at least one score, not an array of shape {array.shape}")
    if bool(np.isnan(array).any()):
        raise ValueError(
            f"{int(np.isnan(array).sum())} of {array.size} scores are NaN: find out why before you average them"
        )
    return array
