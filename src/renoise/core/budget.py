"""How many passes each step of an inversion may take.

Without a total, each step takes one pass and the renoising iterations of its region; the step nearest the image those
of `Settings.nearest`, if that is given.

A total of N passes is dealt out.  Each step takes one.  Where residuals are absorbed by the sampler's noise, the steps
that draw none come next, since they have nothing to absorb with: four more each.  Elsewhere the step nearest the image
gets one more: what it misses, no later step mends.  What is left goes round, one more per step, from the step nearest
the image on.
"""

from __future__ import annotations

from itertools import chain, cycle, islice

from renoise.core.table import StepTable
from renoise.presets import Settings

__all__ = ["budget"]

_UNABSORBED = 4  # more passes where nothing can be absorbed: from measurements on few-step models


def budget(table: StepTable, settings: Settings) -> tuple[int, ...]:
    """Passes of the solver at each step, noisiest step first; with a tolerance, at most.

    Raises:
        ValueError: a total below one pass per step.
    """
    steps = len(table)
    if settings.passes is None:
        passes = [settings.region(table.level(step)).iterations + 1 for step in range(steps)]
        if settings.nearest is not None:
            passes[-1] = settings.nearest + 1
        return tuple(passes)
    if settings.passes < steps:
        raise ValueError(f"passes={settings.passes} for {steps} steps, which take one each: pass {steps} or more")
    from_image = range(steps - 1, -1, -1)
    absorbing = settings.absorption > 0 and table.stochastic
    first = [step for step in from_image if table.n[step] == 0] * _UNABSORBED if absorbing else [steps - 1]
    passes = [1] * steps
    for step in islice(chain(first, cycle(from_image)), settings.passes - steps):
        passes[step] += 1
    return tuple(passes)
