"""What tells one pipeline from another: its class, its denoiser's configuration, and numbers of all its weights.

Every parameter of the denoiser and of each text encoder gives nine numbers: eight of its elements, spread over it, and
the root mean square of up to 65,536 of its elements (all, of smaller ones such as biases and norms).

* The precision of the pipeline may differ, and so may its auto-encoder: between float32, bfloat16 and float16, rounding
  moves an element by less than 2^-8 of itself, and training, a fused LoRA or a scaled layer moves most by more.
* NaN anywhere in those numbers is a difference.  A change of single elements of a large weight goes unnoticed, unless
  they are among those looked at.
* Quantised weights are dequantised, one after the other, which takes some seconds for a large network.  They are known
  less exactly, so that networks of which one is quantised are the same up to 5 percent: 8 bits of the same weights are,
  as integers or as floats, 4 bits are not, and slight fine-tuning goes unnoticed.
* Weights that accelerate offloads (sequentially, or to disk) are read from where they are kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from renoise.pipelines.families import denoiser, uncompiled
from renoise.record import Identity

__all__ = ["difference", "identity"]

_NETWORKS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_ELEMENTS, _IN_NORM = 8, 65_536  # of each parameter: single elements, and elements that its norm is taken of
_NUMBERS = _ELEMENTS + 1
_ROUNDING = 2.0**-8  # relative, of one element: half of it in bfloat16, and a sixteenth of that in float16
_SMALLEST = 2.0**-24  # absolute: what float16 rounds to 0
_QUANTISED, _QUANTISED_ONE = 0.05, 0.15  # relative distance of all elements, and of those of one parameter
_SAME_WEIGHTS = 0.005  # relative distance of the numbers of format 1


def identity(pipe: Any) -> Identity:
    """The identity of a diffusers pipeline that has a denoiser."""
    networks = {name: getattr(pipe, name, None) for name in _NETWORKS}
    sampled = {name: _numbers(network) for name, network in networks.items() if network is not None}
    source = pipe.config.get("_name_or_path")
    return Identity(
        pipeline=type(pipe).__name__,
        source=str(source) if source else None,
        architecture=hashlib.sha256(_architecture(denoiser(pipe)).encode()).hexdigest()[:16],
        weights={name: numbers for name, (numbers, _) in sampled.items()},
        quantised=tuple(name for name, (_, quantised) in sampled.items() if quantised),
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
        if then.sampling == 1:
            same = _near(torch.tensor(then.weights[name]), torch.tensor(_sample(getattr(pipe, name))))
        else:
            before, after = (torch.tensor(which.weights[name], dtype=torch.float64) for which in (then, now))
            same = before.shape == after.shape and _same(before, after, name in {*then.quantised, *now.quantised})
        if not same:
            return f"with other weights in {name}; pass the checkpoint that it was made with ({origin})"
    return None


def _same(before: Tensor, after: Tensor, quantised: bool) -> bool:
    """Whether two networks have the same weights but for rounding, by the numbers that `_numbers` returns."""
    if not quantised:
        room = _ROUNDING * torch.maximum(before.abs(), after.abs()) + _SMALLEST
        near = ((after - before).abs() <= room) & room.isfinite()  # NaN and infinity are not
        return bool(near.all())
    before, after = before.reshape(-1, _NUMBERS), after.reshape(-1, _NUMBERS)
    apart, size = (after - before).norm(dim=1), torch.maximum(before.norm(dim=1), after.norm(dim=1))
    one = bool((apart <= _QUANTISED_ONE * size + _SMALLEST).all())
    return one and bool(apart.norm() <= _QUANTISED * size.norm())


def _near(before: Tensor, after: Tensor) -> bool:
    """The same for the numbers of format 1."""
    return before.shape == after.shape and bool((after - before).norm() <= _SAME_WEIGHTS * before.norm())


def _architecture(network: Any) -> str:
    """The configuration as far as it is not the default, which later versions of diffusers add to."""
    kind = type(uncompiled(network))
    default = {name: parameter.default for name, parameter in inspect.signature(kind.__init__).parameters.items()}
    told = {
        name: json.dumps(value, default=str) for name, value in dict(network.config).items() if not name.startswith("_")
    }
    usual = {name: json.dumps(value, default=str) for name, value in default.items()}
    return json.dumps({name: value for name, value in told.items() if usual.get(name) != value}, sort_keys=True)


@torch.no_grad()
def _numbers(network: torch.nn.Module) -> tuple[tuple[float, ...], bool]:
    """Nine numbers of every parameter, in the order in which the network names them; and whether one is quantised."""
    numbers: list[Tensor] = []
    quantised = False
    seen: set[Tensor] = set()
    for module in network.modules():
        names = [name for name, weight in module.named_parameters(recurse=False) if weight not in seen]
        seen |= {weight for _, weight in module.named_parameters(recurse=False)}
        if not names:
            continue
        with _at_hand(module):
            for name in names:
                weight = getattr(module, name).detach()
                if type(weight) is not Tensor:
                    weight, quantised = _plain(weight), True
                quantised = quantised or weight.dtype.itemsize < 2 or not weight.is_floating_point()
                numbers += _nine(weight)
    if not numbers:
        return (), False
    return tuple(torch.cat([part.cpu() for part in numbers]).tolist()), quantised


def _plain(weight: Tensor) -> Tensor:
    """A quantised weight as floats where it knows how, or else what it is stored as."""
    try:
        return weight.dequantize()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return weight.as_subclass(Tensor)


def _nine(weight: Tensor) -> Iterator[Tensor]:
    """Eight elements of a weight and the root mean square of many, float32."""
    count = weight.numel()
    if not count:
        yield torch.zeros(_NUMBERS)
        return
    # steps of the golden ratio, which no regular pattern of a weight follows
    places = torch.tensor([int(count * (turn * 0.6180339887 % 1)) for turn in range(1, _ELEMENTS + 1)])
    if weight.ndim:
        yield weight[torch.unravel_index(places.to(weight.device), weight.shape)].float()
    else:
        yield weight.float().expand(_ELEMENTS)
    some = weight.squeeze()
    if some.ndim and count > _IN_NORM:
        some = some[:: math.ceil(count / _IN_NORM)]
    if some.dtype.itemsize < 2 or not some.is_floating_point():
        some = some.float()
    norm = torch.linalg.vector_norm(some, dtype=torch.float32)
    yield (norm / math.sqrt(some.numel())).reshape(1)


def _sample(network: torch.nn.Module) -> tuple[float, ...]:
    """Sixteen numbers of eight weights spread over a network, as in files of format 1."""
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

    aligned: AbstractContextManager[Any] = align_module_device(module, execution_device=torch.device("cpu"))
    return aligned
