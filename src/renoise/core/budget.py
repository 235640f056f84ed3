"""How many steps of a schedule are walked, and how many passes each of them may take.

Without a total, each step takes one pass and the renoising iterations of its region; the step nearest the image those
of `Settings.nearest`, if that is given.

A total of N passes is dealt out.  Each step takes one.  Where residuals are absorbed by the sampler's noise, the steps
that draw none come next, since they have nothing to absorb with: four more each.  Elsewhere the step nearest the image
gets one more: what it misses, no later step mends.  What is left goes round, one more per step, from the step nearest
the image on.
"""

from __future__ import annotations

import math
from itertools import chain, cycle, islice

from renoise.core.settings import Settings
from renoise.core.table import StepTable

__all__ = ["budget", "check_total", "kept_steps"]

_UNABSORBED = 4  # more passes where nothing can be absorbed: from measurements on few-step models


def budget(table: StepTable, settings: Settings) -> tuple[int, ...]:
    """Passes of the solver at each step, noisiest step first; with a tolerance, at most.

    Raises:
        ValueError: a total below one pass per step.
    """
    steps = len(table)
    check_total(settings, steps)
    if settings.passes is None:
        passes = [settings.region(table.level(step)).iterations + 1 for step in range(steps)]
        if settings.nearest is not None:
            passes[-1] = settings.nearest + 1
        return tuple(passes)
    from_image = range(steps - 1, -1, -1)
    absorbing = settings.absorption > 0 and table.stochastic
    first = [step for step in from_image if table.n[step] == 0] * _UNABSORBED if absorbing else [steps - 1]
    passes = [1] * steps
    for step in islice(chain(first, cycle(from_image)), settings.passes - steps):
        passes[step] += 1
    return tuple(passes)


def check_total(settings: Settings, steps: int) -> None:
    """Refuses, by ValueError, a total below one pass per step; a method of one's own may take fewer."""
    if settings.method is None and settings.passes is not None and settings.passes < steps:
        raise ValueError(f"passes={settings.passes} for {steps} steps, which take one each: pass {steps} or more")


def kept_steps(num_inference_steps: int, strength: float) -> int:
    """How many steps of a schedule a strength leaves: int(num_inference_steps * strength), as in diffusers.

    Raises:
        ValueError: a strength that is not in (0, 1], or that leaves no step.
    """
    if not isinstance(strength, (int, float)) or not 0 < strength <= 1:
        raise ValueError(f"strength={strength!r} is not in (0, 1]; 1 inverts to pure noise, 0.5 half of the way")
    steps = int(num_inference_steps * strength)
    if steps == 0:
        least = math.ceil(1000 / num_inference_steps) / 1000
        raise ValueError(
            f"strength={strength} of num_inference_steps={num_inference_steps} leaves no step; use at least {least}"
        )
    return steps
