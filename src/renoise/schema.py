"""The shape that the JSON and the tensors of an archive must have, and errors that say where they have not.

A schema is written like the JSON itself:

* a type, such as ``str``, stands for a value of that type; ``object`` for any value, ``None`` for null,
* a list of one schema for a list of such values,
* a dict for an object with those keys, where ``{str: schema}`` stands for keys of any name,
* a tuple for a choice between schemas, and `Optional` for a key that may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["HEADER", "SETTINGS", "Optional", "check", "check_tensors"]


@dataclass(frozen=True)
class Optional:
    """A key of an object that may be missing."""

    schema: Any


_NUMBER, _TEXTS = (int, float), (None, [str])
HEADER: dict[str, Any] = {
    "version": int,
    "sha256": Optional(str),  # since format 2
    "model": (None, str),
    "pipeline": {
        "class": str,
        "source": (None, str),
        "denoiser": str,
        "weights": Optional({str: [_NUMBER]}),  # of format 1
        "networks": Optional([str]),
        "quantised": Optional([str]),
    },
    "scheduler": str,
    "num_train_timesteps": int,
    "integer_timesteps": Optional(bool),
    "settings": {str: object},  # checked by Settings itself
    "prompts": _TEXTS,
    "negative_prompts": _TEXTS,
    "inversion_guidance_scale": _NUMBER,
    "pipe_kwargs": [str],
    "driver": str,
    "boxes": [[int]],
    "batched": bool,
    "seconds": _NUMBER,
    "passes": int,
    "steps": [{"step": int, "passes": int}],
}
"""The JSON of a whole archive."""
SETTINGS: dict[Any, Any] = {
    "regions": [{"below": _NUMBER, "iterations": int, "weights": (None, [_NUMBER])}],
    "edit_losses": (None, {"lambda_pair": _NUMBER, "lambda_kl": _NUMBER, "steps": int, "rolls": int}),
    "solver": str,
    "method": Optional((None, str)),
    str: object,  # numbers, checked by Settings itself
}
"""Its settings."""


def check(value: Any, schema: Any, place: str = "") -> None:
    """Compares JSON with a schema.

    Args:
        value: what `json.loads` returned.
        schema: see the text of this module.
        place: where the value stands in the whole, for errors.

    Raises:
        KeyError: a key is missing.
        TypeError: a value of another type.
        ValueError: a key that is not in the schema.
    """
    if isinstance(schema, tuple):
        for choice in schema:
            if _type(value) is _outer(choice):
                return check(value, choice, place)
        raise _wrong(value, " or ".join(_name(choice) for choice in schema), place)
    if schema is object:
        return None
    if _type(value) is not _outer(schema):
        raise _wrong(value, _name(schema), place)
    if isinstance(schema, list):
        for number, item in enumerate(value):
            check(item, schema[0], f"{place}[{number}]")
    if isinstance(schema, dict):
        _check_object(value, schema, place)
    return None


def check_tensors(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuses, by ValueError, tensors of another kind or shape than an inversion has, and boxes outside the picture."""
    z_0, pixels = tensors["z_0"], tensors["pixels"]
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        raise ValueError(f"pixels are {pixels.dtype} {list(pixels.shape)}, not uint8 [picture, 3, height, width]")
    if z_0.ndim < 2 or not z_0.numel():
        raise ValueError(f"latents are {list(z_0.shape)}, not [picture, channel, ...]")
    for name in ("z_0", "z_T", "noises", "step_latents"):
        if name in tensors and not (tensors[name].is_floating_point() and bool(tensors[name].isfinite().all())):
            raise ValueError(f"{name} is not made of finite floats")
    height, width = pixels.shape[-2:]
    for left, top, right, bottom in header["boxes"]:
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"box {(left, top, right, bottom)} does not lie in a picture of {width} x {height} pixels")
    if header["num_train_timesteps"] < 1:
        raise ValueError(f"num_train_timesteps is {header['num_train_timesteps']}, not 1 or more")
    steps = len(tensors["table.timesteps"])
    if not all(0 <= row["step"] < steps for row in header["steps"]):
        raise ValueError(f"it reports on steps beyond the {steps} of its table")


def _check_object(value: dict[str, Any], schema: dict[Any, Any], place: str) -> None:
    for key, inner in schema.items():
        if key is str:
            continue
        path = f"{place}.{key}".lstrip(".")
        if isinstance(inner, Optional):
            if key in value:
                check(value[key], inner.schema, path)
        elif key not in value:
            raise KeyError(path)
        else:
            check(value[key], inner, path)
    for key in value.keys() - schema.keys():
        if str not in schema:
            raise ValueError(f"{place}.{key}".lstrip(".") + " is unknown")
        check(value[key], schema[str], f"{place}.{key}".lstrip("."))


def _type(value: Any) -> Any:
    return None if value is None else type(value)


def _outer(schema: Any) -> Any:
    """The type that a schema asks for, without what lies in it; None for null."""
    return type(schema) if isinstance(schema, (list, dict)) else schema


def _name(schema: Any) -> str:
    names: dict[Any, str] = {None: "null", str: "a text", int: "a whole number", float: "a number", list: "a list"}
    return {**names, bool: "true or false", dict: "an object"}[_outer(schema)]


def _wrong(value: Any, wanted: str, place: str) -> TypeError:
    text = repr(value)
    return TypeError(f"{place or 'it'} is {text if len(text) <= 80 else text[:80] + '...'}, not {wanted}")
