"""What tells one pipeline from another: its class, its denoiser's configuration, and a sample of its weights.

The precision of the pipeline may differ, and so may its auto-encoder.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from renoise.pipelines.families import denoiser
from renoise.record import Identity

__all__ = ["difference", "identity"]

_NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_SAME_WEIGHTS = 0.005  # relative distance of samples: rounding to bfloat16 is 0.001, fine-tuning 0.01 and more


def identity(pipe: Any) -> Identity:
    """The identity of a diffusers pipeline that has a denoiser."""
    networks = {name: getattr(pipe, name, None) for name in _NETWORKS}
    source = pipe.config.get("_name_or_path")
    return Identity(
        pipeline=type(pipe).__name__,
        source=str(source) if source else None,
        architecture=hashlib.sha256(_architecture(denoiser(pipe)).encode()).hexdigest()[:16],
        weights={name: _sample(network) for name, network in networks.items() if network is not None},
    )


def difference(then: Identity, pipe: Any) -> str | None:
    """What `pipe` has otherwise than the pipeline of an identity, as the end of a sentence that begins "it was made".

    None where it would regenerate the same.
    """
    kind = type(pipe).__name__
    if then.pipeline != kind:
        return f"with a {then.pipeline}, not a {kind}; pass one like that"
    now, origin = identity(pipe), then.source or "not from a file"
    if then.architecture != now.architecture:
        return f"with a denoiser of another architecture; pass the pipeline that it was made with ({origin})"
    for name in then.weights.keys() & now.weights.keys():  # a text encoder may be missing where embeddings came
        before, after = torch.tensor(then.weights[name]), torch.tensor(now.weights[name])
        if before.shape != after.shape or (after - before).norm() > _SAME_WEIGHTS * before.norm():
            return f"with other weights in {name}; pass the checkpoint that it was made with ({origin})"
    return None


def _architecture(network: Any) -> str:
    """The configuration as far as it is not the default, which later versions of diffusers add to."""
    kind = type(getattr(network, "_orig_mod", network))  # of a compiled network too
    default = {name: parameter.default for name, parameter in inspect.signature(kind.__init__).parameters.items()}
    told = {
        name: json.dumps(value, default=str) for name, value in dict(network.config).items() if not name.startswith("_")
    }
    usual = {name: json.dumps(value, default=str) for name, value in default.items()}
    return json.dumps({name: value for name, value in told.items() if usual.get(name) != value}, sort_keys=True)


def _sample(network: torch.nn.Module) -> tuple[float, ...]:
    """Some numbers of eight weights spread over a network: enough to tell it from a fine-tuned one."""
    owners = {
        weight: (module, name)
        for module in network.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim > 1
    }
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    numbers: list[float] = []
    for chosen in weights[:: max(1, len(weights) // 8)]:
        module, name = owners[chosen]
        with _at_hand(module):
            weight = getattr(module, name).detach()
            if type(weight) is not Tensor:  # quantised
                weight = weight.dequantize()
            numbers += weight.flatten()[:16].tolist()
    return tuple(numbers)


def _at_hand(module: torch.nn.Module) -> AbstractContextManager[Any]:
    """Has the weights of a module that accelerate offloads loaded inside."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    aligned: AbstractContextManager[Any] = align_module_device(module)
    return aligned
