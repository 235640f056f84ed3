r"""Edit-enhancement losses: move a predicted noise map towards white noise by gradient steps.

Editing after inversion works best when the network's predictions look like white noise.  ReNoise (Garibi et al., ECCV
2024) therefore changes its predictions by a few gradient steps on

    L_edit = lambda_pair L_pair + lambda_KL L_patch-KL.

The gradients of both losses are written out below in closed form, so nothing here uses autograd.

**L_pair** is the auto-correlation loss of pix2pix-zero (Parmar et al., SIGGRAPH 2023, L_pair).  White noise is
uncorrelated with its own rolled (cyclically shifted) copies at every scale.  Let n_0 be one channel, n_l the scales of
its average-pool pyramid with N_l pixels each, and r_l one roll per scale, the same for both axes.  Then

    L_pair = sum_l  m_h(l)^2 + m_w(l)^2,        m_a(l) = mean(n_l * roll_a(n_l, r_l)),

summed over the channels of an image.  One scale contributes to the gradient

    g_l = (2 / N_l) sum_a m_a(l) (roll_a(n_l, r_l) + roll_a(n_l, -r_l)),

and the gradients of coarser scales pass back through the pooling: dL/dn_l = g_l + unpool(dL/dn_(l+1)) / 4.  The
pyramid halves both sides while the shorter one stays at 8 pixels or more.  Pooling ignores an odd last row or column.

**L_patch-KL** describes each 4x4 patch of a channel by a Gaussian with the patch's mean mu and unbiased variance v.  It
is twice the KL divergence of the prediction's Gaussians from those of a target (mu', v'), with e = 1e-6,

    L_patch-KL = sum over patches of  log((v' + e) / (v + e)) + (v + (mu - mu')^2) / (v' + e) - 1,

whose gradient at pixel x of a patch of n pixels is

    2 (mu - mu') / (n (v' + e))  +  2 (x - mu) / (n - 1) * (1 / (v' + e) - 1 / (v + e)).

Rows and columns at the bottom and the right that do not fill a patch belong to none, so their gradient is 0.

**One gradient step** is a step on L_patch-KL, then one on L_pair for each roll, each from where the last one ended.
The rolls of a gradient step share lambda_pair evenly.  Channels, scales and patches are summed, not averaged, so the
lambdas of the paper apply as printed.

Maps are float32 or float64 [batch, channel, height, width].  Each image of a batch is treated on its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from renoise.core.rolls import check_rolls, pyramid, rolls_shape

__all__ = ["check_growth", "enhance", "pair_loss", "patch_kl"]

_PATCH = 4
_VARIANCE_FLOOR = 1e-6  # keeps the divergence finite on flat patches
_GROWTH = 100  # times its own size: more than this is an overflow


def pair_loss(x: Tensor, rolls: Tensor) -> tuple[Tensor, Tensor]:
    """Auto-correlation loss L_pair with one roll per image, channel and scale of the pyramid.

    Args:
        x: maps [batch, channel, height, width].
        rolls: whole numbers [batch, channel, scale], taken modulo the height and the width of their scale.

    Returns:
        The loss per image [batch] and its gradient, shaped as `x`.

    Raises:
        ValueError: the maps or the rolls have another shape or dtype.
    """
    _check_maps("x", x)
    check_rolls(rolls, (x.shape[0], *rolls_shape(x.shape)))
    with torch.no_grad():
        maps = x.reshape(-1, *x.shape[-2:])
        rows = [starts[0] for starts in _row_starts(x, rolls[:, None])]
        value, gradient = _pair(maps, rows)
        return value.reshape(x.shape[:2]).sum(1), gradient.reshape(x.shape)


def patch_kl(x: Tensor, target: Tensor, *, patch: int = _PATCH) -> tuple[Tensor, Tensor]:
    """Patch divergence L_patch-KL of `x` from `target`.

    Args:
        x: maps [batch, channel, height, width].
        target: maps of the same shape.
        patch: side of a patch in pixels, 2 up to the shorter side of the map.

    Returns:
        The loss per image [batch] and its gradient in `x`, shaped as `x`.

    Raises:
        ValueError: the maps differ in shape or dtype, or are smaller than a patch.
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
    """Move a prediction towards white noise by gradient steps on both losses, in the order described in the module.

    Args:
        prediction: the network's noise prediction [batch, channel, height, width].
        target: the network's prediction at the clean latent noised to the same level, same shape.  Not read if
            `lambda_kl` is 0.
        lambda_pair: weight of the auto-correlation loss, 0 or more; 0 skips it.
        lambda_kl: weight of the patch divergence, 0 or more; 0 skips it.
        steps: number of gradient steps, 0 or more.
        rolls: int64 [batch, step, roll, channel, scale] as `draw_rolls` returns it.  Not read if `lambda_pair` is 0.

    Returns:
        A new tensor, shaped as `prediction`.

    Raises:
        ValueError: a weight or count is out of its range, or the tensors do not match.
    """
    _check_maps("prediction", prediction)
    for name, weight in (("lambda_pair", lambda_pair), ("lambda_kl", lambda_kl)):
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name}={weight} is not a weight: pass 0 to skip this loss, or a positive number")
    if steps < 0:
        raise ValueError(f"steps={steps} is no number of gradient steps: pass 0 or more")
    with torch.no_grad():
        x = prediction.clone(memory_format=torch.contiguous_format)
        maps = x.view(-1, *x.shape[-2:])
        if lambda_kl:
            if target is None:
                raise ValueError(f"lambda_kl={lambda_kl} needs a target: pass one like the prediction, or lambda_kl=0")
            _check_target(x, target, _PATCH)
            target_mean, target_variance, _ = _patch_moments(target, _PATCH)
        if lambda_pair:
            if rolls is None:
                raise ValueError(f"lambda_pair={lambda_pair} needs rolls: pass some from draw_rolls, or lambda_pair=0")
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


def check_growth(prediction: Tensor, enhanced: Tensor, step: int, *, lambda_pair: float, lambda_kl: float) -> None:
    """Refuses, by ValueError, losses that overflow: those that work change a prediction by a few percent."""
    if enhanced.abs().max() <= _GROWTH * max(1.0, prediction.abs().max().item()):
        return
    raise ValueError(  # not a number comes here too
        f"the edit losses overflow at step {step}: lambda_pair={lambda_pair:g} and lambda_kl={lambda_kl:g} move the "
        f"prediction to over {_GROWTH} times its size; pass smaller ones, or edit_losses=None"
    )


def _row_starts(x: Tensor, rolls: Tensor) -> list[Tensor]:
    """Where each row of each rolled copy begins in the memory of `_pair`, for rolls [batch, draw, channel, scale].

    `_pair` writes every row of the maps twice in a line, so a row of a rolled copy is one contiguous piece of memory.
    The four copies are rows rolled by r, rows by -r, columns by r, columns by -r.

    Returns:
        For each scale int64 [draw, copy * map * row].
    """
    maps = x.shape[0] * x.shape[1]
    by_draw = rolls.to(x.device).transpose(0, 1).reshape(rolls.shape[1], maps, 1, -1)
    starts = []
    for scale, (height, width) in enumerate(pyramid(*x.shape[-2:])):
        shift = by_draw[..., scale]
        row = torch.arange(height, device=x.device)
        first = torch.arange(maps, device=x.device)[:, None] * height  # of each map
        rows = [(first + (row - s) % height) * 2 * width for s in (shift, -shift)]
        columns = [(first + row) * 2 * width + (-s) % width for s in (shift, -shift)]
        starts.append(torch.stack(rows + columns, 1).flatten(1))
    return starts


def _pair(maps: Tensor, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """L_pair [map] and gradient [map, height, width] of this scale and the coarser ones, given their row starts."""
    starts, *coarser = rows
    count, height, width = maps.shape
    twice = torch.cat((maps, maps), -1)
    runs = twice.as_strided((twice.numel() - width + 1, width), (1, 1))
    copies = runs.index_select(0, starts).view(2, 2, count, height, width)
    both = copies[:, 0].add_(copies[:, 1])  # [axis, map, height, width]: roll(n, r) + roll(n, -r)
    mean = (both * maps).sum((2, 3)) / (2 * height * width)
    both *= (mean * (2 / (height * width)))[..., None, None]
    gradient = both[0].add_(both[1])
    value = (mean**2).sum(0)
    if coarser:
        coarser_value, coarser_gradient = _pair(avg_pool2d(maps, 2), coarser)
        value += coarser_value
        _blocks(gradient, 2).add_(coarser_gradient[:, :, None, :, None], alpha=0.25)
    return value, gradient


def _blocks(x: Tensor, side: int) -> Tensor:
    """View of [..., height, width] as [..., block row, side, block column, side], without rows that fill no block."""
    rows, columns = (size // side for size in x.shape[-2:])
    return x[..., : rows * side, : columns * side].view(*x.shape[:-2], rows, side, columns, side)


def _patch_moments(x: Tensor, patch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and unbiased variance [batch, channel, patch row, patch column], and pixels minus mean as in `_blocks`."""
    mean = avg_pool2d(x, patch)
    centred = _blocks(x, patch) - mean[..., :, None, :, None]
    variance = avg_pool2d(centred.square().flatten(-4, -3).flatten(-2), patch) * (patch**2 / (patch**2 - 1))
    return mean, variance, centred


def _add_kl_gradient(
    x: Tensor,
    factor: float,
    mean: Tensor,
    variance: Tensor,
    centred: Tensor,
    target_mean: Tensor,
    target_variance: Tensor,
) -> None:
    """Add `factor` times the gradient of L_patch-KL to `x`, in place."""
    pixels = centred.shape[-1] ** 2
    precision = 1 / (target_variance + _VARIANCE_FLOOR)
    offset = (mean - target_mean) * precision * (2 / pixels)
    slope = (precision - 1 / (variance + _VARIANCE_FLOOR)) * (2 / (pixels - 1))
    gradient = torch.addcmul(offset[..., :, None, :, None], slope[..., :, None, :, None], centred)
    _blocks(x, centred.shape[-1]).add_(gradient, alpha=factor)


def _check_maps(name: str, x: Tensor) -> None:
    if x.ndim != 4 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} is {x.dtype} {list(x.shape)}: the losses take float32 or float64 [batch, channel, height, width]; "
            "half precision gives wrong losses (off by a fifth), so convert with .float() first"
        )


def _check_target(x: Tensor, target: Tensor, patch: int) -> None:
    if target.shape != x.shape or target.dtype != x.dtype:
        raise ValueError(
            f"target is {target.dtype} {list(target.shape)}, the maps are {x.dtype} {list(x.shape)}: pass two alike"
        )
    if not 2 <= patch <= min(x.shape[-2:]):
        raise ValueError(
            f"maps of {x.shape[-2]}x{x.shape[-1]} pixels have no patches of {patch}x{patch} with a variance: use "
            "larger latents, a patch side from 2 to their shorter side, or skip this loss with lambda_kl=0"
        )
