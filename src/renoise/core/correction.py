"""Noise correction for stochastic samplers: change the noise of a step such that the step misses its target by less.

A step of a stochastic sampler takes the noisier latent z_t to z_s with noise eps drawn beforehand (eq. 1 of ReNoise,
Garibi et al., ECCV 2024, in the letters of this library):

    z_s = a z_t + b m(z_t) + n eps.

Inversion finds z_t only approximately, so replaying the step misses z_s.  The noise that would reach z_s exactly is
called the residual noise,

    eps* = (z_s - a z_t - b m(z_t)) / n,

and correction moves eps towards eps*.  Replacing eps by eps* reconstructs exactly but edits badly, because the noise
then holds a part of the image that z_T does not.  So the corrected noise eps' of an image is kept within

    ||eps' - eps|| <= bound * sqrt(dim),        dim = how many numbers its noise has.

White noise has the length sqrt(dim), so the bound is a share of that length and means the same at every resolution.
The published experiments use at most 18 in L2, which at 512 pixels (4x64x64 numbers) is bound = 18 / 128, about 0.14.

Noise is floating point [batch, ...].  Each image of a batch is treated on its own, and no argument is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Whiteness", "correct", "travel", "whiteness"]


def correct(noise: Tensor, residual_noise: Tensor, *, bound: float) -> Tensor:
    """Move `noise` on a straight line towards `residual_noise`, at most as far as the bound allows.

    Args:
        noise: noise eps of the step, [batch, ...].
        residual_noise: the noise eps* that would make the step exact, same shape and dtype.
        bound: how far the noise of an image may move, in L2 divided by sqrt(dim).  0.0 leaves it as it is, `math.inf`
            replaces it by `residual_noise`.

    Returns:
        The corrected noise eps', a new tensor of the same shape.

    Raises:
        ValueError: the bound is negative or NaN, or the tensors differ in shape or dtype.
    """
    if not bound >= 0:
        raise ValueError(f"bound={bound} is no distance: pass 0.0 (none), math.inf (exact) or a number like 0.14")
    _check_match(noise, residual_noise)
    if bound == 0:
        return noise.clone()
    step = residual_noise - noise
    distance = travel(noise, residual_noise).view(-1, *[1] * (noise.ndim - 1))
    return torch.where(distance <= bound, residual_noise, noise + step * (bound / distance))


def travel(noise: Tensor, corrected: Tensor) -> Tensor:
    """L2 distance between two noises of the same shape [batch, ...], divided by sqrt(dim).

    Returns:
        One number per image [batch], 0 or more.

    Raises:
        ValueError: the tensors differ in shape or dtype.
    """
    _check_match(noise, corrected)
    return (corrected - noise).flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True, eq=False)
class Whiteness:
    """How far noise is from white noise, which has std 1 and neighbour 0.

    Attributes:
        std: standard deviation over all channels and pixels, per image [batch].
        neighbour: correlation of adjacent pixels, the mean of left-right and up-down, per image [batch].
    """

    std: Tensor
    neighbour: Tensor


def whiteness(noise: Tensor) -> Whiteness:
    """Measure noise [batch, channel, height, width], height and width at least 2.

    Raises:
        ValueError: the noise has another shape, or a side of 1 pixel.
    """
    if noise.ndim != 4 or min(noise.shape[-2:]) < 2:
        raise ValueError(
            f"noise is {list(noise.shape)}, and neighbours are compared here: pass [batch, channel, height, width] "
            "with both sides 2 or more"
        )
    centred = noise - noise.mean((1, 2, 3), keepdim=True)
    variance = centred.square().mean((1, 2, 3))
    left_right = (centred[..., 1:] * centred[..., :-1]).mean((1, 2, 3))
    up_down = (centred[..., 1:, :] * centred[..., :-1, :]).mean((1, 2, 3))
    return Whiteness(std=variance.sqrt(), neighbour=(left_right + up_down) / (2 * variance))


def _check_match(noise: Tensor, other: Tensor) -> None:
    if noise.shape != other.shape or noise.dtype != other.dtype:
        raise ValueError(
            f"noise is {noise.dtype} {list(noise.shape)}, the other {other.dtype} {list(other.shape)}: pass two of one "
            "shape and dtype"
        )
