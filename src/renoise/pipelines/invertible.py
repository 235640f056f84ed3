"""Give a pipeline a sampler that can be inverted."""

from __future__ import annotations

import copy
from typing import Any

from renoise.pipelines.advice import advice, shown
from renoise.pipelines.measure import NotInvertible, measure
from renoise.pipelines.turns import check_free

__all__ = ["make_invertible"]

_STEPS = 8  # of the trial: enough for any history to show


def make_invertible(pipe: Any) -> str:
    """Swap `pipe.scheduler` for its nearest relative whose steps can be undone, unless they already can.

    The new one is what the refusal of `measure` says to type, and has been measured.  It makes other pictures
    from the same seed: first-order samplers take more steps than higher-order ones for the same quality.

    Args:
        pipe: any diffusers pipeline.

    Returns:
        What changed, in a line to print.

    Raises:
        NotInvertible: diffusers has no such relative; the pipeline is left as it was.
        TypeError: `pipe` has no scheduler.
        RuntimeError: the pipeline is in the middle of an inversion or of replaying one.
    """
    old = getattr(pipe, "scheduler", None)
    if old is None:
        raise TypeError(f"{type(pipe).__name__} has no scheduler: pass a diffusers pipeline")
    check_free(pipe)
    name = type(old).__name__
    try:
        _try(old)
    except NotInvertible:
        remedy = advice(old)
        if remedy is None:
            raise
        new = remedy.build(old.config)
        _try(new)
    else:
        return f"{name} can be inverted as it is"
    pipe.scheduler = new
    changes = ", ".join(
        f"{key}={shown(value)} instead of {shown(old.config.get(key))}"
        for key, value in remedy.changes.items()
        if old.config.get(key) != value
    )
    swapped = name if remedy.scheduler == name else f"{name} replaced by {remedy.scheduler}"
    return f"{swapped}: {changes}" if changes else swapped


def _try(scheduler: Any) -> None:
    """Measure a copy of a scheduler on a few steps."""
    trial = copy.deepcopy(scheduler)
    try:
        trial.set_timesteps(_STEPS, **({"mu": 1.0} if trial.config.get("use_dynamic_shifting") else {}))
    except Exception as error:
        raise NotInvertible(
            f"{type(scheduler).__name__} cannot be inverted: set_timesteps({_STEPS}) fails ({error})"
        ) from error
    measure(trial)
