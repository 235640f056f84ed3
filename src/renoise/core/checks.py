"""Checks of what users hand over: numbers become Python's own, and every refusal says what to pass instead.

A message names the argument with its value, the reason, and the remedy.  Numbers of numpy and torch are numbers here:
``np.int64(3)``, ``np.float32(0.5)`` and ``torch.tensor(3)`` are taken, and stored as ``3`` and ``0.5``, so that
settings can be compared and saved.  Truth values are not numbers: ``True`` in place of a count is a mistake.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LIMITS",
    "Limits",
    "file_path",
    "keywords",
    "number",
    "pixel_size",
    "scalar",
    "shown",
    "truth",
    "values",
    "whole",
]


@dataclass
class Limits:
    """The largest values that are taken; more is most likely a slip, and would run for days or exhaust the memory.

    Assign to `LIMITS` to allow more, for instance ``renoise.core.checks.LIMITS.iterations = 5000``.

    Attributes:
        picture_pixels: height times width of a picture that is opened.
        size_pixels: height times width of the picture that the model sees.
        steps: sampler steps.
        iterations: renoising iterations of one step; also gradient steps, and rolls, of the edit losses.
        passes: network passes of one inversion.
    """

    picture_pixels: int = 100_000_000
    size_pixels: int = 4096 * 4096
    steps: int = 10_000
    iterations: int = 1_000
    passes: int = 100_000


LIMITS = Limits()
"""The limits in force, for the whole process."""


def shown(value: object) -> str:
    """A value as error messages show it: its repr in one line, cut after 200 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a message must not fail over what it is about
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 200 else f"{text[:200]}..."


def scalar(value: Any) -> Any:
    """A number of numpy, torch or the standard library as an int or a float; everything else as it is."""
    if value is None or isinstance(value, (str, bytes)):
        return value
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except Exception:  # a tensor without values, on the meta device
            return value
    if isinstance(value, bool):
        return value
    try:
        if isinstance(value, numbers.Integral):
            return int(value)
        if isinstance(value, numbers.Real):
            return float(value)
    except (OverflowError, ValueError):
        return value
    return value


def whole(name: str, value: object, remedy: str, *, least: int = 0, most: int | None = None, limit: str = "") -> int:
    """A whole number.

    Args:
        name: of the argument.
        value: as the user gave it.
        remedy: how a refusal goes on after "name=value", for instance ": pass a whole number, 1 or more".
        least: smallest value.
        most: largest value, by nature.
        limit: the attribute of `LIMITS` that bounds the value, if one does.

    Raises:
        ValueError: anything else.
    """
    found = scalar(value)
    fits = (
        isinstance(found, int) and not isinstance(found, bool) and least <= found <= (found if most is None else most)
    )
    if not fits:
        raise ValueError(f"{name}={shown(value)}{remedy}")
    if limit:
        _below_limit(name, value, found, limit)
    return int(found)


def number(name: str, value: object, remedy: str, holds: Callable[[float], bool]) -> float:
    """A float of which a condition holds.

    Args:
        name: of the argument.
        value: as the user gave it.
        remedy: how a refusal goes on after "name=value".
        holds: the condition, False for NaN too.

    Raises:
        ValueError: anything else.
    """
    found = scalar(value)
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        try:
            found = float(found)
        except OverflowError:
            found = math.nan
        if holds(found):
            return found
    raise ValueError(f"{name}={shown(value)}{remedy}")


def truth(name: str, value: object) -> bool:
    """A truth value, of numpy or torch too.

    Raises:
        TypeError: anything else.
    """
    found = scalar(value)
    if not isinstance(found, bool):
        raise TypeError(f"{name}={shown(value)} is neither True nor False: pass one of them")
    return found


def values(name: str, value: Any, remedy: str) -> tuple[Any, ...]:
    """The items of a list, a tuple, or a one-dimensional array or tensor.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if len(getattr(value, "shape", ())) == 1 and callable(getattr(value, "tolist", None)):
        return tuple(value.tolist())
    raise ValueError(f"{name}={shown(value)}{remedy}")


def pixel_size(size: Any) -> Any:
    """A size in pixels with numbers of Python, if it is one number or a list of numbers; everything else as it is.

    Raises:
        ValueError: more pixels than `LIMITS.size_pixels`.
    """
    if size is None or isinstance(size, (str, bytes)):
        return size
    shape = getattr(size, "shape", None)
    sides = size.tolist() if shape is not None and len(shape) == 1 else scalar(size)
    if not isinstance(sides, (list, tuple)):
        sides = [sides]
        size = sides[0]
    else:
        size = sides = tuple(scalar(side) for side in sides)
    if len(sides) in (1, 2) and all(isinstance(side, int) and side > 0 for side in sides):
        pixels = sides[0] * sides[-1]
        if pixels > LIMITS.size_pixels:
            most = math.isqrt(LIMITS.size_pixels)
            raise ValueError(
                f"size={shown(size)} has too many pixels, the limit is {most} x {most}: pass a smaller size, or raise "
                f"the limit: renoise.core.checks.LIMITS.size_pixels = {pixels if pixels < 10**15 else '...'}"
            )
    return size


def file_path(path: object, name: str = "path") -> str:
    """A path as text.

    Raises:
        TypeError: no path.
        ValueError: an empty one, or one with a NUL character.
    """
    try:
        found = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if not isinstance(found, str):
        raise TypeError(f"{name}={shown(path)} is no path: pass a str or an os.PathLike of one, like pathlib.Path")
    if not found or "\0" in found:
        what = "is empty" if not found else "has a NUL character in it"
        raise ValueError(f"{name}={shown(path)} {what}: pass the name of a file")
    return found


def keywords(name: str, value: object) -> dict[str, Any]:
    """A mapping from names to values as a dict; None is an empty one.

    Raises:
        TypeError: no mapping, or one whose keys are not all texts.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name}={shown(value)} is no dict of keywords: pass one like {{'eta': 0.5}}")
    return dict(value)


def _below_limit(name: str, value: object, found: int, limit: str) -> None:
    most = getattr(LIMITS, limit)
    if found > most:
        raise ValueError(
            f"{name}={shown(value)} is above the limit of {most}: pass less, or raise the limit: "
            f"renoise.core.checks.LIMITS.{limit} = {found if found < 10**15 else '...'}"
        )
