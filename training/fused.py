"""Fused group norm + SiLU for training on a CPU, swapped into stock diffusers modules.

Parameters and state-dict keys stay those of the stock modules, so checkpoints load anywhere.
Without a compiler the stock modules are used: the same result, two to five times slower.
"""

import functools
import itertools
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from training.loop import DEVICE


@functools.cache
def extension() -> ModuleType | None:
    from torch.utils.cpp_extension import load

    try:
        return load(
            "renoise_fused",
            [str(Path(__file__).with_name("fused.cpp"))],
            extra_cflags=["-O3", "-march=native", "-ffast-math", "-mprefer-vector-width=512"],
            extra_ldflags=["-lmvec", "-lm"],
        )
    except (RuntimeError, OSError) as error:
        warnings.warn(f"no fused kernels, training will be slow: {error}", stacklevel=2)
        return None


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float, silu: bool
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y, scale, shift, stats = extension().forward(x, weight, bias, groups, eps, silu)  # type: ignore[union-attr]
        ctx.save_for_backward(x, weight, scale, shift, stats)
        ctx.silu = silu
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale, shift, stats = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, dw, db = extension().backward(dy, x, weight, scale, shift, stats, ctx.silu)  # type: ignore[union-attr]
        return dx, dw, db, None, None, None


class NormAct(nn.GroupNorm):
    """nn.GroupNorm with an optional SiLU behind it; the fused kernel takes 4-D bfloat16, all else runs as stock."""

    silu = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 4 and x.dtype == torch.bfloat16:
            return _NormAct.apply(x, self.weight, self.bias, self.num_groups, self.eps, self.silu)
        y = super().forward(x)
        return F.silu(y) if self.silu else y


class VectorSiLU(nn.Module):
    """SiLU for embeddings only: the maps have had theirs in the norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x) if x.ndim == 2 else x


class Unscaled:
    """What a residual block divides its sum by, where that is one: the division is left out."""

    def __rtruediv__(self, x: torch.Tensor) -> torch.Tensor:
        return x


def fuse(model: nn.Module) -> nn.Module:
    """Swaps the kernels into every norm of a diffusers UNet, an auto-encoder or the judge, in place."""
    if DEVICE.type != "cpu" or extension() is None:
        return model
    followed_by_silu = set()
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            module.nonlinearity = VectorSiLU()
            if module.output_scale_factor == 1:
                module.output_scale_factor = Unscaled()
            followed_by_silu |= {id(module.norm1), id(module.norm2)}
        if hasattr(module, "conv_norm_out") and hasattr(module, "conv_act"):
            module.conv_act = nn.Identity()
            followed_by_silu.add(id(module.conv_norm_out))
        if isinstance(module, nn.Sequential):
            for i, (norm, act) in enumerate(itertools.pairwise(list(module))):
                if type(norm) is nn.GroupNorm and isinstance(act, nn.SiLU):
                    followed_by_silu.add(id(norm))
                    module[i + 1] = nn.Identity()
    for module in model.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = NormAct
            module.silu = id(module) in followed_by_silu  # type: ignore[assignment]
    return model
