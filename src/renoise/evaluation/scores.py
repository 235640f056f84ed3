"""What is recorded of each reconstructed picture: fidelity, and statistics of latents and noise."""

from __future__ import annotations

import torch
from torch import Tensor

from renoise import metrics
from renoise.core.correction import whiteness
from renoise.evaluation.runs import Run

__all__ = ["FIDELITY", "NOISE", "Scores", "failed", "reconstructed"]

FIDELITY = ("psnr_round_trip", "psnr_image", "ssim", "ceiling")
NOISE = ("z_std", "z_neighbour", "noise_std", "noise_std_furthest", "noise_neighbour", "noise_travel")

Scores = dict[str, Tensor]  # column: [batch]


def reconstructed(run: Run, found: Tensor) -> Scores:
    """Fidelity, and how far z_T and the noise are from white noise, one score per picture [batch] in each column.

    PSNR is in dB: `psnr_round_trip` to what the auto-encoder alone gives back, `psnr_image` to the picture, `ceiling`
    of the auto-encoder alone to the picture.  `z_std` is in units of sqrt(alpha^2 + sigma^2) at the noisiest level, so
    1 for white noise.  The noise columns are means over the steps that draw noise.  `noise_std_furthest` is the
    standard deviation at the step where it is furthest from 1.  `noise_travel` is the RMS over these steps of how far
    the noise moved towards a residual, as a share of the length of white noise.  It measures side information.

    Args:
        run: the pictures, inverted.
        found: their reconstructions [batch, 3, height, width] in [0, 1].
    """
    inversion = run.inversion
    ceiling, z_T = inversion.round_trip(), inversion.latents  # noqa: N806
    size = torch.hypot(inversion.table.alpha[0], inversion.table.sigma[0]).item()
    white = whiteness(z_T)
    scores = {
        "finite": torch.ones(len(found)),
        "psnr_round_trip": metrics.psnr(found, ceiling),
        "psnr_image": metrics.psnr(found, inversion.pixels),
        "ssim": metrics.ssim(found, inversion.pixels),
        "ceiling": metrics.psnr(ceiling, inversion.pixels),
        "z_std": white.std / size,
        "z_neighbour": white.neighbour,
    }
    noises, steps = inversion.trajectory.noises, inversion.table.n.nonzero().flatten().tolist()
    if noises is None or not steps:
        return scores
    each = [whiteness(noises[step]) for step in steps]
    std = torch.stack([noise.std for noise in each])
    furthest = (std - 1).abs().argmax(0)
    moved = [step.noise_travel for step in inversion.trajectory.steps if step.noise_travel is not None]
    return scores | {
        "noise_std": std.mean(0),
        "noise_std_furthest": std.gather(0, furthest[None])[0],
        "noise_neighbour": torch.stack([noise.neighbour for noise in each]).mean(0),
        "noise_travel": (torch.stack(moved).square().sum(0) / len(steps)).sqrt() if moved else 0 * std[0],
    }


def failed(count: int) -> Scores:
    """Scores of pictures that could not be inverted or generated: 0 dB, so that they count in every mean."""
    return {name: torch.zeros(count) for name in ("finite", *FIDELITY[:3])}
