"""Which kind of pipeline a live one is, and which class fits one that is of none."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

from renoise.pipelines.kind import DESCRIPTIONS, EMBEDDINGS, NEGATIVES, TEXTS, Family, Loop, Task, denoiser, uncompiled
from renoise.pipelines.kinds_transformer import TRANSFORMERS
from renoise.pipelines.kinds_unet import UNETS

__all__ = [
    "DESCRIPTIONS",
    "EMBEDDINGS",
    "FAMILIES",
    "NEGATIVES",
    "TEXTS",
    "Family",
    "Loop",
    "Task",
    "denoiser",
    "family",
    "uncompiled",
]

FAMILIES: dict[str, Family] = {**UNETS, **TRANSFORMERS}
"""A row for each kind of pipeline, by its name."""


def family(pipe: Any) -> str:
    """The key of a pipeline's row in `FAMILIES`.

    Raises:
        TypeError: the pipeline is of no known kind.  The message names its class and those that work.
    """
    rows = {kind: name for name, rules in FAMILIES.items() for kind in rules.pipelines}
    for kind in type(pipe).__mro__:  # so that a class of one's own may have another row than the one that it extends
        if kind.__name__ in rows:
            return rows[kind.__name__]
    fitting = _fitting(pipe)
    advice = f"its networks without its task are made one by {fitting}.from_pipe(pipe, dtype=pipe.dtype)"
    raise TypeError(
        f"{type(pipe).__name__} is not supported; "
        + (advice if fitting else "`renoise models` lists what is, and renoise.register_family adds a kind of your own")
    )


def _fitting(pipe: Any) -> str | None:
    """The known class that can be made from a pipeline's components, if any: that which uses the most of them."""
    import diffusers

    if not isinstance(pipe, diffusers.DiffusionPipeline) or not _makes_pictures(pipe):
        return None
    best: tuple[int, int, str] | None = None
    for name, rules in [(name, row) for row in FAMILIES.values() for name in row.pipelines]:
        kind: Any = getattr(diffusers, name, None)
        if kind is None:  # registered from outside, or not in this version of diffusers
            continue
        types = kind._get_signature_types()
        networks = [key for key in kind._get_signature_keys(kind)[0] if key.startswith(_COMPONENTS)]
        fits = all(key in pipe.components and _is_one_of(pipe.components[key], types.get(key, ())) for key in networks)
        used = sum(pipe.components.get(key) is not None for key in networks)
        # of two alike, the one that makes pictures from words
        alike = 2 * _letters_alike(name, type(pipe).__name__) + (rules.task == "words")
        if fits and (best is None or (used, alike) > best[:2]):
            best = used, alike, name
    return best and best[2]


def _letters_alike(one: str, other: str) -> int:
    """With how many of the same letters two names begin."""
    return sum(1 for _ in itertools.takewhile(bool, map(operator.eq, one, other)))


_COMPONENTS = ("unet", "transformer", "vae", "text_encoder", "controlnet")


def _is_one_of(component: Any, types: Sequence[Any]) -> bool:
    return component is None or isinstance(component, tuple(kind for kind in types if isinstance(kind, type)))


def _makes_pictures(pipe: Any) -> bool:
    """Whether a pipeline's network takes latents alone, and not a mask or another picture beside them."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    config: Any = getattr(network, "config", {})
    taken = config.get("in_channels")
    # an auto-encoder of depth maps beside pictures takes six channels
    colours = getattr(getattr(pipe, "vae", None), "config", {}).get("in_channels", 3)
    returned = config.get("out_channels") or taken
    return colours == 3 and taken is not None and taken in (returned, 4 * returned)  # tokens of 2 x 2 latents
