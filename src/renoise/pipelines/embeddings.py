"""Checks of prompt embeddings that users hand over: whatever cannot work is refused before any network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from renoise.pipelines.families import Family, denoiser, uncompiled

__all__ = ["check_embeddings"]

_PROMPT, _POOLED, _SECOND = "prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_2"


def check_embeddings(pipe: Any, family: Family, keywords: Mapping[str, Any], count: int) -> None:
    """Refuses embeddings that the pipeline's network cannot take.

    Args:
        pipe: the pipeline.
        family: its row.
        keywords: of its call.
        count: how many prompts the call has.

    Raises:
        TypeError: embeddings that are no tensors of floats.
        ValueError: of another shape than the network takes, without the pooled embeddings, those of a second text
            encoder or the mask that belong to them, or negative embeddings that differ in shape from the others where
            both are one batch.
    """
    kind, network = type(pipe).__name__, denoiser(pipe)
    config = uncompiled(network).config
    widths = {_PROMPT: family.width, _POOLED: family.pooled, _SECOND: family.second}
    given = {name: value for name, value in keywords.items() if name.removeprefix("negative_") in widths}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        width = widths[name.removeprefix("negative_")]
        _check_rows(name, value, 2 if name.endswith(_POOLED) else 3, width(config) if width else None)
        if len(value) != count:
            raise ValueError(f"{name} has {len(value)} rows for {count} prompts: pass one row per picture")
    for prefix in ("", "negative_"):
        name = prefix + _PROMPT
        for partner in (prefix + other for other in (_POOLED, _SECOND) if widths[other]):
            if (name in given) != (partner in given):
                present, absent = (name, partner) if name in given else (partner, name)
                raise ValueError(f"{present} without {absent}: {kind} needs both; encode_prompt returns both")
        for part in (name, prefix + _SECOND) if family.masked else ():
            mask = part.replace("embeds", "attention_mask")
            if part in given and keywords.get(mask) is None:
                raise ValueError(f"{part} without {mask}: {kind} needs both; encode_prompt returns both")
    both = [given.get(prefix + _PROMPT) for prefix in ("", "negative_")]
    if not family.unequal and all(isinstance(value, Tensor) for value in both):
        shapes = [list(value.shape) for value in both if value is not None]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"negative_prompt_embeds are {shapes[1]} and prompt_embeds {shapes[0]}: they are one batch under "
                "guidance, so pad both to the same number of tokens"
            )


def _check_rows(name: str, value: Any, axes: int, width: int | None) -> None:
    """Refuses what is not a tensor with a row per picture, or a list of such rows, of the width that is asked for."""
    rows: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    if not rows or not all(isinstance(row, Tensor) and row.is_floating_point() for row in rows):
        found = type(value).__name__
        raise TypeError(f"{name} holds no floating-point tensors ({found}): pass what encode_prompt returns")
    wanted = axes - (rows is value)
    form = "[pictures, width]" if axes == 2 else "[pictures, tokens, width]"
    for row in rows:
        if row.ndim != wanted or (width is not None and row.shape[-1] != width):
            shown = f", with width {width}" if width is not None else ""
            raise ValueError(f"{name} has the shape {list(row.shape)}: this network takes {form}{shown}")
