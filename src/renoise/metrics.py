"""Scores of pictures against pictures, and honest summaries of many scores.

Pictures are float tensors [batch, channels, height, width] in [0, 1]; scores are float64 on the CPU, one per picture.
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
    """Peak signal-to-noise ratio in dB with peak 1, -10 log10(mean squared difference), [batch]; inf when identical.

    Raises:
        ValueError: the shapes differ, or values lie outside [0, 1].
    """
    a, b = _pair(a, b)
    return -10 * torch.log10((a - b).square().flatten(1).mean(dim=1))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity [batch] by scikit-image: uniform 7x7 window, mean over channels, data range 1.

    Pictures with a side under 7 pixels take the largest odd window that fits, down to 3.

    Raises:
        ImportError: scikit-image is missing.
        ValueError: the shapes differ, values lie outside [0, 1], or a side is under 3 pixels.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError('ssim needs scikit-image: pip install "renoise[bench]"') from error
    a, b = _pair(a, b)
    side = min(a.shape[-2:])
    if side < 3:
        raise ValueError(f"ssim compares windows of 3 pixels and more, the pictures are {list(a.shape[-2:])}: use psnr")
    window = min(7, side - 1 + side % 2)
    scores = [
        float(structural_similarity(x.numpy(), y.numpy(), win_size=window, data_range=1.0, channel_axis=0))
        for x, y in zip(a, b, strict=True)
    ]
    return torch.tensor(scores, dtype=torch.float64)


def interval(values: Values, seed: int = 0, *, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """Interval of the mean by the percentile bootstrap: (low, high) at confidence `level`.

    Resampling is seeded by `seed` alone; the global random state is not touched.

    Raises:
        ValueError: no values, NaN among them, or a level that is not between 0 and 1.
    """
    array = _array(values)
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not a probability between 0 and 1, such as 0.95")
    if draws < 1:
        raise ValueError(f"draws {draws} must be at least 1; 10000 is usual")
    rng = np.random.default_rng(seed)
    # one resample at a time: thousands of values times thousands of draws do not fit in memory
    means = np.array([rng.choice(array, size=array.size).mean() for _ in range(draws)])
    # a method without interpolation, which an infinite mean (identical pictures) would turn into NaN
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return float(low), float(high)


@dataclass(frozen=True)
class Summary:
    """What many scores of the kind "higher is better" come to; failures hide in a mean, so the low end is shown."""

    count: int
    mean: float
    median: float
    p5: float  # fifth percentile: a value of the sample, at least 5 % of which is no better
    worst: float

    @classmethod
    def of(cls, values: Values) -> Summary:
        """Summarise scores; raises ValueError when there are none or NaN is among them."""
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
            f"two batches [batch, channels, height, width] of one shape, not {list(a.shape)}, {list(b.shape)}"
        )
    for pixels in (a, b):
        # written so that NaN fails too; rounding may carry a decoder's output just past the ends
        if pixels.numel() == 0 or not bool(((pixels >= -1e-3) & (pixels <= 1 + 1e-3)).all()):
            raise ValueError(
                "pixels must be floats in [0, 1] and not NaN: divide bytes by 255, map [-1, 1] by x / 2 + 0.5"
            )
    return a.detach().to("cpu", torch.float64), b.detach().to("cpu", torch.float64)


def _array(values: Values) -> npt.NDArray[np.float64]:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"a list of at least one score is needed, not an array of shape {array.shape}")
    if bool(np.isnan(array).any()):
        raise ValueError(
            f"{int(np.isnan(array).sum())} of {array.size} scores are NaN: find out why, do not average them"
        )
    return array
