"""Masks of PIE-Bench: run lengths in a flat list, over pictures of 512 x 512 pixels.

The list is [start, length, start, length, ...]; starts count pixels row by row.  Pixels in a run are to be edited.  The
benchmark's own reader then marks the outermost pixel on all four sides as edited too, so nothing is compared there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["SIDE", "Mask", "decode", "encode", "numbers"]

SIDE = 512
"""Height and width of every mask of PIE-Bench."""

Mask = npt.NDArray[np.bool_]


def decode(runs: Sequence[int], side: int = SIDE, *, border: bool = True) -> Mask:
    """The mask [side, side] that run lengths describe, True where the picture is to be edited.

    Args:
        runs: [start, length, start, length, ...].  A run that goes beyond the last pixel ends there.
        side: height and width of the mask.
        border: whether to mark the outermost pixel on all sides as edited, as PIE-Bench does.

    Raises:
        ValueError: an odd number of numbers, negative ones, or a run that starts beyond the mask.
    """
    if len(runs) % 2:
        raise ValueError(f"a mask of {len(runs)} numbers is no list of pairs [start, length, ...]")
    flat = np.zeros(side * side, dtype=np.bool_)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if start < 0 or length < 0 or start >= side * side:
            raise ValueError(f"the run [{start}, {length}] of a mask lies outside of its {side} x {side} pixels")
        flat[start : start + length] = True
    mask: Mask = flat.reshape(side, side)
    if border:
        mask[[0, -1], :] = mask[:, [0, -1]] = True
    return mask


def encode(mask: Mask) -> list[int]:
    """Run lengths of a mask [height, width], as `decode` reads them."""
    flat = np.concatenate([[False], mask.astype(np.bool_).ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    return [int(number) for pair in zip(starts, ends - starts, strict=True) for number in pair]


def numbers(runs: object) -> list[int]:
    """Run lengths as a list, whether they come as numbers, as texts, or as one text such as "[0, 10]" or "0 10".

    Raises:
        ValueError: something else.
    """
    if isinstance(runs, str):
        if re.fullmatch(r"[\s,\[\]\d]*", runs):
            return [int(number) for number in re.findall(r"\d+", runs)]
    elif isinstance(runs, (list, tuple, np.ndarray)):
        found = [int(number) for number in runs if isinstance(number, (int, np.integer)) or str(number).isdigit()]
        if len(found) == len(runs):
            return found
    raise ValueError(f"a mask is a list of numbers [start, length, ...], not {str(runs)[:60]!r}")
