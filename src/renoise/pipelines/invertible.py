"""Give a pipeline a sampler whose steps can be inverted."""

from __future__ import annotations

import copy
from typing import Any

from renoise.pipelines.advice import advice, typed
from renoise.pipelines.known_steps import check_scheduler
from renoise.pipelines.measure import NotInvertible, measure
from renoise.pipelines.turns import turn

__all__ = ["make_invertible"]

_STEPS = 8  # steps of the trial, enough to notice a scheduler that keeps a history


def make_invertible(pipe: Any) -> str:
    """Replace `pipe.scheduler` by the most similar scheduler whose steps can be inverted, unless its own can.

    The new scheduler is the one that the error `NotInvertible` advises, and it is tested before it is set.  It makes
    other images from the same seed.  It may also need more steps for the same quality, because it is a first-order
    sampler.

    Args:
        pipe: any diffusers pipeline.

    Returns:
        One line of text that says what changed.

    Raises:
        NotInvertible: diffusers has no such scheduler.  The pipeline is left as it was.
        TypeError: `pipe` has no scheduler.
        RuntimeError: the pipeline is in the middle of an inversion or of replaying one.
    """
    if getattr(pipe, "scheduler", None) is None:
        raise TypeError(f"{type(pipe).__name__} has no scheduler: pass a diffusers pipeline")
    with turn(pipe):
        return _exchanged(pipe)


def _exchanged(pipe: Any) -> str:
    """Exchanges the scheduler of a pipeline that nobody else works on."""
    old = pipe.scheduler
    check_scheduler(old)
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
        f"{key}={typed(value)} instead of {typed(old.config.get(key))}"
        for key, value in remedy.changes.items()
        if old.config.get(key) != value
    )
    swapped = name if remedy.scheduler == name else f"{name} replaced by {remedy.scheduler}"
    return f"{swapped}: {changes}" if changes else swapped


def _try(scheduler: Any) -> None:
    """Measure a copy of a scheduler on a few steps.  Raises NotInvertible if its steps cannot be inverted."""
    trial = copy.deepcopy(scheduler)
    try:
        trial.set_timesteps(_STEPS, **({"mu": 1.0} if trial.config.get("use_dynamic_shifting") else {}))
    except Exception as error:
        raise NotInvertible(
            f"{type(scheduler).__name__} cannot be inverted: set_timesteps({_STEPS}) fails ({error})"
        ) from error
    measure(trial)
