"""Noise correction for stochastic samplers: let the noise of a step absorb what inversion could not explain.

A step of a stochastic sampler takes the noisier latent z_t to z_s with noise drawn beforehand (eq. 1 of ReNoise, Garibi
et al., ECCV 2024, in the letters of this library):

    z_s = a z_t + b m(z_t) + n eps.

Inversion finds z_t only nearly, so replaying that step misses z_s.  The noise that would hit it exactly is the residual

    eps* = (z_s - a z_t - b m(z_t)) / n,

and correction moves eps towards eps*.  Going all the way reconstructs exactly and edits badly, because part of the
image then lies in the noise instead of in z_T.  So the noise of an image travels no further, in L2, than

    ||eps' - eps|| <= bound * sqrt(dim),        dim = how many numbers its noise has,

a share of the length of white noise itself, which is sqrt(dim): the bound means the same at every resolution.  The
published experiments walk at most 18 units, which at 512 pixels (4x64x64 numbers) is bound = 18 / 128, about 0.14.

Noise is floating point [batch, ...]; the images of a batch never meet, and nothing passed in is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Whiteness", "correct", "travel", "whiteness"]


def correct(noise: Tensor, residual_noise: Tensor, *, bound: float) -> Tensor:
    """Move `noise` straight towards `residual_noise`, stopping there or where the bound is used up.

    Args:
        noise: noise of the step, [batch, ...].
        residual_noise: the noise eps* that would make the step exact, same shape.
        bound: how far the noise of an image may travel, in L2 over sqrt(dim): 0.0 leaves it as it is, `math.inf`
            replaces it.

    Returns:
        A new tensor.

    Raises:
        ValueError: a bound that is negative or not a number, or tensors that do not match.
    """
    if not bound >= 0:
        raise ValueError(f"bound={bound} is no distance: pass 0.0 (none), math.inf (exact) or between, such as 0.14")
    _check_match(noise, residual_noise)
    if bound == 0:
        return noise.clone()
    step = residual_noise - noise
    distance = travel(noise, residual_noise).view(-1, *[1] * (noise.ndim - 1))
    return torch.where(distance <= bound, residual_noise, noise + step * (bound / distance))


def travel(noise: Tensor, corrected: Tensor) -> Tensor:
    """L2 distance between two noises of the same shape [batch, ...] over sqrt(dim): per image [batch], 0 or more.

    Raises:
        ValueError: tensors that do not match.
    """
    _check_match(noise, corrected)
    return (corrected - noise).flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True, eq=False)
class Whiteness:
    """How far noise is from white, per image; the noise of a sampler has std 1 and neighbour 0.

    Attributes:
        std: standard deviation over all channels and pixels [batch].
        neighbour: correlation of adjacent pixels, the mean of left-right and up-down [batch].
    """

    std: Tensor
    neighbour: Tensor


def whiteness(noise: Tensor) -> Whiteness:
    """Measure noise [batch, channel, height, width], both sides at least 2 pixels.

    Raises:
        ValueError: noise of another shape, or without neighbours.
    """
    if noise.ndim != 4 or min(noise.shape[-2:]) < 2:
        raise ValueError(
            f"noise is {list(noise.shape)}, but pixels need neighbours: pass [batch, channel, height, width] with both "
            "sides 2 or more"
        )
    centred = noise - noise.mean((1, 2, 3), keepdim=True)
    variance = centred.square().mean((1, 2, 3))
    left_right = (centred[..., 1:] * centred[..., :-1]).mean((1, 2, 3))
    up_down = (centred[..., 1:, :] * centred[..., :-1, :]).mean((1, 2, 3))
    return Whiteness(std=variance.sqrt(), neighbour=(left_right + up_down) / (2 * variance))


def _check_match(noise: Tensor, other: Tensor) -> None:
    if noise.shape != other.shape or noise.dtype != other.dtype:
        raise ValueError(
            f"noise is {noise.dtype} {list(noise.shape)}, the other {other.dtype} {list(other.shape)}: pass two alike"
        )
