"""What was found, said in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from renoise.core.trajectory import Trajectory

__all__ = ["Scores", "duration", "fitted", "noise_share", "place", "verdict"]


@dataclass(frozen=True)
class Scores:
    """How good an inversion is, and what it cost.

    Attributes:
        fidelity: dB of the reconstruction to the picture as the model saw it.
        ceiling: dB of the auto-encoder's round trip, which no inversion can beat by much.
        passes: network passes.
        seconds: wall time of the inversion.
        noise_share: how far the sampler's noise was moved, as a share of its length; None where it draws none.
        residuals: of every step, noisiest first, the residual after each pass.
        timesteps: of these steps.
    """

    fidelity: float
    ceiling: float
    passes: int
    seconds: float
    noise_share: float | None
    residuals: tuple[tuple[float, ...], ...]
    timesteps: tuple[float, ...]


def noise_share(trajectory: Trajectory) -> float | None:
    """How far the noise of all steps together was moved to carry picture, as a share of its length; None without noise.

    The travel of a step is a share of the length of white noise (`StepReport`), so that of all steps is their root mean
    square.
    """
    if trajectory.noises is None:
        return None
    travels = [0.0 if step.noise_travel is None else float(step.noise_travel[0]) for step in trajectory.steps]
    return math.sqrt(sum(travel**2 for travel in travels) / max(1, len(travels)))


def verdict(scores: Scores) -> str:
    """How good the reconstruction is, in one or two sentences."""
    gap = scores.ceiling - scores.fidelity
    if gap <= 0.05:
        first = "As close as this model can come: no worse than what its auto-encoder gives back by itself."
    else:
        judged = (
            "Very close"
            if gap <= 1
            else "Close"
            if gap <= 3
            else "Recognisable, but detail is lost"
            if gap <= 8
            else "Far off"
        )
        first = f"{judged}: {gap:.1f} dB below what the auto-encoder can give."
        if gap > 3:
            first += " A preset with more passes, or a caption that fits better, may help."
    if scores.noise_share is None:
        return f"{first} This sampler draws no noise, so all of the picture is in the starting noise."
    if scores.noise_share < 0.005:
        return f"{first} None of the sampler's noise carries picture."
    return f"{first} {scores.noise_share:.0%} of the noise carries picture."


def duration(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def place(ahead: int) -> str:
    """The place in the queue, from how many come first."""
    if ahead <= 0:
        return "Starting …"
    others = "one piece of work is" if ahead == 1 else f"{ahead} pieces of work are"
    return f"You are number {ahead + 1} in the queue: {others} before yours. Stop takes you out of it."


def fitted(size: tuple[int, int], target: tuple[int, int], box: Sequence[int]) -> str:
    """How a picture is brought to the size that the model works at.

    Args:
        size: (width, height) of the picture.
        target: (height, width) of the model.
        box: where the picture lies in it, as (left, top, right, bottom).
    """
    left, top, right, bottom = box
    height, width = target
    told = f"Yours has {size[0]} × {size[1]} pixels; the model works at {width} × {height}"
    if (right - left, bottom - top) != tuple(size):
        told += f", so it is scaled to {right - left} × {bottom - top}"
    sides = [
        f"{pixels} pixels {where}"
        for pixels, where in ((left, "left"), (width - right, "right"), (top, "above"), (height - bottom, "below"))
        if pixels
    ]
    if sides:
        told += f" and padded ({', '.join(sides)}; cut off again at the end)"
    return told + "."
