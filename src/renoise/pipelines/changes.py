"""Whether the networks of a live pipeline have changed since an inversion: adapters switched, weights loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Networks", "Watch", "changed", "networks_of"]

_NAMES = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "controlnet")
_SAME = 0.005  # relative distance of samples in another precision: rounding to bfloat16 is 0.001


@dataclass(frozen=True, eq=False)
class Networks:
    """What can be told cheaply of a pipeline's networks.

    Attributes:
        adapters: names of the active adapters, and how strong each is, by network.
        weights: one number of each matrix, and their precision, by network; without those of offloaded and quantised
            networks, which would have to be loaded.
    """

    adapters: Mapping[str, tuple[tuple[str, float], ...]]
    weights: Mapping[str, tuple[torch.dtype, Tensor]]


class Watch:
    """Warns once where a pipeline's networks are not what they were when this was made."""

    def __init__(self, pipe: Any) -> None:
        """Takes the pipeline as it is now."""
        self._then, self._said = networks_of(pipe), False

    def look(self, pipe: Any) -> None:
        """Compares the pipeline with what it was."""
        change = None if self._said else changed(self._then, networks_of(pipe))
        if change:
            self._said = True
            warnings.warn(
                f"{change} changed since the inversion, which regenerates its picture with the networks it was made "
                "with: put them back, or invert again",
                stacklevel=5,
            )


def networks_of(pipe: Any) -> Networks:
    """The state of a pipeline's networks now."""
    networks = {name: getattr(pipe, name, None) for name in _NAMES}
    present = {name: network for name, network in networks.items() if isinstance(network, torch.nn.Module)}
    adapters = {name: _adapters(network) for name, network in present.items()}
    weights = {name: sample for name, network in present.items() if (sample := _sample(network)) is not None}
    return Networks(adapters, weights)


def changed(then: Networks, now: Networks) -> str | None:
    """What has changed, for a sentence; None where nothing has as far as can be told."""
    for name in then.adapters.keys() & now.adapters.keys():
        if then.adapters[name] != now.adapters[name]:
            return f"the adapters (LoRA) of its {name}"
    for name in then.weights.keys() & now.weights.keys():
        (precision, before), (new_precision, after) = then.weights[name], now.weights[name]
        same = before.shape == after.shape and (
            torch.equal(before, after)
            if precision == new_precision
            else bool((after - before).norm() <= _SAME * before.norm())
        )
        if not same:
            return f"the weights of its {name}"
    return None


def _adapters(network: Any) -> tuple[tuple[str, float], ...]:
    """Active adapters with the sum of the factors that their layers give them."""
    strengths: dict[str, float] = {}
    for module in network.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict) and hasattr(module, "active_adapters"):
            off = module.disable_adapters or module.merged
            for adapter in () if off else module.active_adapters:
                strengths[adapter] = strengths.get(adapter, 0.0) + float(scaling.get(adapter, 0.0))
    return tuple(sorted(strengths.items()))


def _sample(network: torch.nn.Module) -> tuple[torch.dtype, Tensor] | None:
    """One number of each matrix, adapters' left out; None where they are not at hand."""
    matrices = [weight for name, weight in network.named_parameters() if weight.ndim > 1 and "lora_" not in name]
    if not matrices or any(weight.is_meta or type(weight.data) is not Tensor for weight in matrices):
        return None
    with torch.no_grad():
        numbers = torch.stack([_middle(weight) for weight in matrices])
    return matrices[0].dtype, numbers


def _middle(weight: Tensor) -> Tensor:
    """One number, without a copy of the others."""
    return weight.detach()[tuple(side // 2 for side in weight.shape)].float().cpu()
