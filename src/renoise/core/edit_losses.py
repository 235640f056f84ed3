r"""Edit-enhancement losses: nudge a predicted noise map towards white noise, by closed-form gradients.

Editing after inversion works best when the network's predictions look like white noise.  ReNoise (Garibi et al., ECCV
2024) therefore moves its predictions by a few gradient steps on

    L_edit = lambda_pair L_pair + lambda_KL L_patch-KL.

Both losses are short functions of sums, so their gradients are written out; nothing here uses autograd.

**L_pair** is the auto-correlation loss of pix2pix-zero (Parmar et al., SIGGRAPH 2023, L_pair).  White noise is
uncorrelated with its own rolled copies at every scale.  With n_0 one channel, n_l the levels of its average-pool
pyramid, N_l their pixels and one roll r_l per level, the same for both axes,

    L_pair = sum_l  m_h(l)^2 + m_w(l)^2,        m_a(l) = mean(n_l * roll_a(n_l, r_l)),

summed over the channels of an image.  The share of one level in the gradient is

    g_l = (2 / N_l) sum_a m_a(l) (roll_a(n_l, r_l) + roll_a(n_l, -r_l)),

and coarser levels come back through the pooling: dL/dn_l = g_l + unpool(dL/dn_(l+1)) / 4.  The pyramid halves both
sides while the shorter one stays at 8 pixels or more; the level below leaves out an odd last row or column.

**L_patch-KL** reads 4x4 patches, per channel, as Gaussians of mean mu and unbiased variance v.  It is twice the
divergence of the prediction's Gaussians from the target's (mu', v'), with e = 1e-6,

    L_patch-KL = sum over patches of  log((v' + e) / (v + e)) + (v + (mu - mu')^2) / (v' + e) - 1,

whose gradient at pixel x of a patch of n pixels is

    2 (mu - mu') / (n (v' + e))  +  2 (x - mu) / (n - 1) * (1 / (v' + e) - 1 / (v + e)).

Rows and columns left over at the bottom and the right, fewer than a patch, belong to no patch: their gradient is 0.

**One gradient step** is a step on L_patch-KL, then one on L_pair per roll, each taken where the last one ended; the
rolls of a gradient step share lambda_pair evenly.  Channels, levels and patches are summed, not averaged: the lambdas
of the paper apply as printed.

Maps are float32 or float64 [batch, channel, height, width]; the images of a batch never meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from renoise.core.rolls import check_rolls, pyramid, rolls_shape

__all__ = ["enhance", "pair_loss", "patch_kl"]

_PATCH = 4
_VARIANCE_FLOOR = 1e-6  # keeps the divergence finite on flat patches


def pair_loss(x: Tensor, rolls: Tensor) -> tuple[Tensor, Tensor]:
    """Auto-correlation loss of one roll per image, channel and pyramid level.

    Args:
        x: maps [batch, channel, height, width].
        rolls: whole numbers [batch, channel, level], taken modulo the height and the width of their level.

    Returns:
        The loss per image [batch] and its gradient, shaped as `x`.

    Raises:
        ValueError: maps or rolls of another shape or dtype.
    """
    _check_maps("x", x)
    check_rolls(rolls, (x.shape[0], *rolls_shape(x.shape)))
    with torch.no_grad():
        maps = x.reshape(-1, *x.shape[-2:])
        rows = [starts[0] for starts in _row_starts(x, rolls[:, None])]
        value, gradient = _pair(maps, rows)
        return value.reshape(x.shape[:2]).sum(1), gradient.reshape(x.shape)


def patch_kl(x: Tensor, target: Tensor, *, patch: int = _PATCH) -> tuple[Tensor, Tensor]:
    """Divergence of the patches of `x`, read as Gaussians, from those of `target`.

    Args:
        x: maps [batch, channel, height, width].
        target: maps of the same shape.
        patch: side of a patch in pixels, 2 up to the shorter side of the map.

    Returns:
        The loss per image [batch] and its gradient in `x`, shaped as `x`.

    Raises:
        ValueError: maps that do not match, or that are smaller than a patch.
    """
    _check_maps("x", x)
    _check_target(x, target, patch)
    with torch.no_grad():
        mean, variance, centred = _patch_moments(x, patch)
        target_mean, target_variance, _ = _patch_moments(target, patch)
        aim = target_variance + _VARIANCE_FLOOR
        offset = mean - target_mean
        terms = torch.log(aim / (variance + _VARIANCE_FLOOR)) + (variance + offset**2) / aim - 1
        gradient = torch.zeros_like(x)
        _add_kl_gradient(gradient, 1.0, mean, variance, centred, target_mean, target_variance)
        return terms.sum((1, 2, 3)), gradient


def enhance(
    prediction: Tensor,
    target: Tensor | None,
    *,
    lambda_pair: float,
    lambda_kl: float,
    steps: int,
    rolls: Tensor | None,
) -> Tensor:
    """Move a prediction towards white noise by gradient steps on both losses, in the order the module's text gives.

    Args:
        prediction: the network's noise prediction [batch, channel, height, width].
        target: its prediction at the clean latent noised to the same level, same shape; not read if `lambda_kl` is 0.
        lambda_pair: weight of the auto-correlation loss, 0 or more; 0 skips it.
        lambda_kl: weight of the patch divergence, 0 or more; 0 skips it.
        steps: gradient steps, 0 or more.
        rolls: int64 [batch, step, roll, channel, level] as `draw_rolls` returns it; not read if `lambda_pair` is 0.

    Returns:
        A new tensor, shaped as `prediction`.

    Raises:
        ValueError: a weight or count out of its range, or tensors that do not match.
    """
    _check_maps("prediction", prediction)
    for name, weight in (("lambda_pair", lambda_pair), ("lambda_kl", lambda_kl)):
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name}={weight} is not a weight: pass 0 to skip this loss, or a positive number")
    if steps < 0:
        raise ValueError(f"steps={steps} cannot be taken: pass 0 for none, or more")
    with torch.no_grad():
        x = prediction.clone(memory_format=torch.contiguous_format)
        maps = x.view(-1, *x.shape[-2:])
        if lambda_kl:
            if target is None:
                raise ValueError(f"lambda_kl={lambda_kl} needs a target: pass the one to stay close to, or lambda_kl=0")
            _check_target(x, target, _PATCH)
            target_mean, target_variance, _ = _patch_moments(target, _PATCH)
        if lambda_pair:
            if rolls is None:
                raise ValueError(f"lambda_pair={lambda_pair} needs rolls: pass those of draw_rolls, or lambda_pair=0")
            check_rolls(rolls, (x.shape[0], steps, *rolls.shape[2:3], *rolls_shape(x.shape)))
            count = rolls.shape[2]
            rows = _row_starts(x, rolls.flatten(1, 2))
        for step in range(steps):
            if lambda_kl:
                _add_kl_gradient(x, -lambda_kl, *_patch_moments(x, _PATCH), target_mean, target_variance)
            if lambda_pair:
                for roll in range(step * count, (step + 1) * count):
                    _, gradient = _pair(maps, [starts[roll] for starts in rows])
                    maps.sub_(gradient, alpha=lambda_pair / count)
        return x


def _row_starts(x: Tensor, rolls: Tensor) -> list[Tensor]:
    """From rolls [batch, draw, channel, level], where each row of each rolled copy begins.

    `_pair` lays every row of the maps out twice in a line, so that each row of a rolled copy is one run of that memory.
    The copies are: rows rolled by r, by -r, columns rolled by r, by -r.  Per level int64 [draw, copy * map * row].
    """
    maps = x.shape[0] * x.shape[1]
    by_draw = rolls.to(x.device).transpose(0, 1).reshape(rolls.shape[1], maps, 1, -1)
    starts = []
    for level, (height, width) in enumerate(pyramid(*x.shape[-2:])):
        shift = by_draw[..., level]
        row = torch.arange(height, device=x.device)
        first = torch.arange(maps, device=x.device)[:, None] * height  # of each map
        rows = [(first + (row - s) % height) * 2 * width for s in (shift, -shift)]
        columns = [(first + row) * 2 * width + (-s) % width for s in (shift, -shift)]
        starts.append(torch.stack(rows + columns, 1).flatten(1))
    return starts


def _pair(maps: Tensor, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """L_pair [map] and gradient [map, height, width] of this level and the ones below, given their row starts."""
    starts, *below = rows
    count, height, width = maps.shape
    twice = torch.cat((maps, maps), -1)
    runs = twice.as_strided((twice.numel() - width + 1, width), (1, 1))
    copies = runs.index_select(0, starts).view(2, 2, count, height, width)
    both = copies[:, 0].add_(copies[:, 1])  # [axis, map, height, width]: roll(n, r) + roll(n, -r)
    mean = (both * maps).sum((2, 3)) / (2 * height * width)
    both *= (mean * (2 / (height * width)))[..., None, None]
    gradient = both[0].add_(both[1])
    value = (mean**2).sum(0)
    if below:
        value_below, gradient_below = _pair(avg_pool2d(maps, 2), below)
        value += value_below
        _blocks(gradient, 2).add_(gradient_below[:, :, None, :, None], alpha=0.25)
    return value, gradient


def _blocks(x: Tensor, side: int) -> Tensor:
    """View of [..., height, width] as [..., block row, side, block column, side], less what fills no block."""
    rows, columns = (size // side for size in x.shape[-2:])
    return x[..., : rows * side, : columns * side].view(*x.shape[:-2], rows, side, columns, side)


def _patch_moments(x: Tensor, patch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and unbiased variance [batch, channel, patch row, patch column]; pixels less their mean, as `_blocks`."""
    mean = avg_pool2d(x, patch)
    centred = _blocks(x, patch) - mean[..., :, None, :, None]
    variance = avg_pool2d(centred.square().flatten(-4, -3).flatten(-2), patch) * (patch**2 / (patch**2 - 1))
    return mean, variance, centred


def _add_kl_gradient(
    x: Tensor,
    scale: float,
    mean: Tensor,
    variance: Tensor,
    centred: Tensor,
    target_mean: Tensor,
    target_variance: Tensor,
) -> None:
    """Add `scale` times the gradient of L_patch-KL to `x`, in place."""
    pixels = centred.shape[-1] ** 2
    precision = 1 / (target_variance + _VARIANCE_FLOOR)
    offset = (mean - target_mean) * precision * (2 / pixels)
    slope = (precision - 1 / (variance + _VARIANCE_FLOOR)) * (2 / (pixels - 1))
    gradient = torch.addcmul(offset[..., :, None, :, None], slope[..., :, None, :, None], centred)
    _blocks(x, centred.shape[-1]).add_(gradient, alpha=scale)


def _check_maps(name: str, x: Tensor) -> None:
    if x.ndim != 4 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} is {x.dtype} {list(x.shape)}: the losses take float32 or float64 [batch, channel, height, width]; "
            "half precision is off by a fifth, so convert with .float() first"
        )


def _check_target(x: Tensor, target: Tensor, patch: int) -> None:
    if target.shape != x.shape or target.dtype != x.dtype:
        raise ValueError(
            f"target is {target.dtype} {list(target.shape)}, the maps are {x.dtype} {list(x.shape)}: pass one like them"
        )
    if not 2 <= patch <= min(x.shape[-2:]):
        raise ValueError(
            f"maps of {x.shape[-2]}x{x.shape[-1]} pixels have no patches of {patch}x{patch} with a variance: use "
            "larger latents, a patch from 2 up to their shorter side, or skip the divergence with lambda_kl=0"
        )
