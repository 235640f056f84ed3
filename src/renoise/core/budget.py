"""How many steps of a schedule an inversion walks, and how many network passes each of them may take.

Without a total (`Settings.passes` is None), each step takes one pass and the renoising iterations of its region.  If
`Settings.nearest` is given, the step nearest the image takes that many iterations instead of those of its region.

A total of N passes is distributed to the steps in this order:

1. Every step gets one.
2. If the sampler draws noise and the settings use absorption, each step without noise gets four more, because it has no
   noise to absorb its residual.  Otherwise the step nearest the image gets one more, because no later step of the
   reconstruction can repair its error.
3. The rest is given out one by one, from the step nearest the image to the noisiest, then again from the start.
"""

from __future__ import annotations

import math
from itertools import chain, cycle, islice

from renoise.core.checks import number, truth
from renoise.core.settings import Settings
from renoise.core.table import StepTable

__all__ = ["budget", "check_keeping", "check_total", "kept_steps"]

_UNABSORBED = 4  # further passes of a step that cannot absorb, chosen by measurements on few-step models


def budget(table: StepTable, settings: Settings) -> tuple[int, ...]:
    """Passes of the solver at each step, noisiest step first.  With a tolerance a step may take fewer.

    Raises:
        ValueError: the total in the settings is below one pass per step.
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
    """Raises ValueError for a total below one pass per step, unless the settings carry a method of the user's own."""
    if settings.method is None and settings.passes is not None and settings.passes < steps:
        raise ValueError(f"passes={settings.passes} for {steps} steps, which take one each: pass {steps} or more")


def check_keeping(settings: Settings, keep_latents: bool) -> None:
    """Refuses, by ValueError, to keep the latents of every step where a method of one's own makes the trajectory.

    Also what is neither True nor False.
    """
    if truth("keep_latents", keep_latents) and settings.method is not None:
        raise ValueError("keep_latents=True: a method of your own decides what it keeps; leave keep_latents out")


def kept_steps(num_inference_steps: int, strength: float) -> int:
    """How many steps of a schedule are walked at this strength: int(num_inference_steps * strength), as in diffusers.

    Raises:
        ValueError: the strength is not in (0, 1], or it leaves no step.
    """
    remedy = " is not in (0, 1]; 1 inverts to pure noise, 0.5 half of the way"
    strength = number("strength", strength, remedy, lambda share: 0 < share <= 1)
    steps = int(num_inference_steps * strength)
    if steps == 0:
        least = math.ceil(1000 / num_inference_steps) / 1000
        raise ValueError(
            f"strength={strength} of num_inference_steps={num_inference_steps} leaves no step; use at least {least}"
        )
    return steps
