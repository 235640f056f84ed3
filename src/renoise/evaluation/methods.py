"""Methods of inversion to compare: settings with a name, and lists of them at equal numbers of network passes.

Methods of other papers are settings with a solver or a method of their own.  The library's presets are taken by name,
and only their number of passes is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from renoise.core.settings import Region, Settings, plain
from renoise.presets import PRESETS

__all__ = ["PLAIN", "Method", "compared", "default_budgets", "describe", "options", "renoising", "reversals"]

PLAIN = "plain reversal"
"""The name and the family of the baseline."""


@dataclass(frozen=True)
class Method:
    """One row of a table of methods.

    Attributes:
        name: name of the method, unique within its table.
        family: the methods of a family are drawn as one line.
        settings: how to invert, and the number of steps to generate with.
        gradients: whether each pass also has a backward pass through the network.
        fine: number of inversion steps if it differs from that of the settings.
    """

    name: str
    family: str
    settings: Settings
    gradients: bool = False
    fine: int | None = None


def reversals(bare: Settings, fine: Sequence[int]) -> Iterator[Method]:
    """Plain reversal, and plain reversal in more steps than are generated with: the paper's baseline at equal passes.

    Args:
        bare: plain settings, one pass per step.
        fine: numbers of inversion steps, multiples of the number of steps in `bare`.
    """
    yield Method(PLAIN, PLAIN, bare)
    for steps in fine:
        yield Method(f"{PLAIN}, {steps} inversion steps", PLAIN, bare, fine=steps)


def renoising(bare: Settings, iterations: Sequence[int]) -> Iterator[Method]:
    """ReNoise with K iterations at every step and nothing else, as in the paper's figure 8."""
    for each in iterations:
        yield Method(f"ReNoise K={each}", "ReNoise", replace(bare, regions=(Region(iterations=each),)))


def options(paper: Settings) -> Iterator[Method]:
    """What the published settings add to ReNoise, one after the other, as in the paper's table 2."""
    few_step = paper.num_inference_steps < 10
    family = "ReNoise, its options"
    yield Method("+ averaging", family, replace(paper, edit_losses=None, correction=0.0))
    nine = PRESETS["paper-sdxl-turbo"].settings.regions
    if few_step and len(nine[0].weights or ()) != len(paper.regions[0].weights or ()):
        regions = tuple(replace(new, below=own.below) for new, own in zip(nine, paper.regions, strict=True))
        yield Method("K=9 + averaging", family, replace(paper, regions=regions, edit_losses=None, correction=0.0))
    yield Method("+ edit losses", family, replace(paper, correction=0.0))
    if paper.correction:
        yield Method("+ noise correction", family, paper)
        yield Method("averaging + correction", family, replace(paper, edit_losses=None))


def default_budgets(steps: int) -> tuple[int, ...]:
    """Network passes to compare at: 1, 2, 3, 5 and 10 per step with few steps, 1 and 2 with many."""
    return tuple(steps * each for each in ((1, 2, 3, 5, 10) if steps < 10 else (1, 2)))


def compared(paper: Settings, presets: Mapping[str, Settings], budgets: Sequence[int]) -> Iterator[Method]:
    """Methods for a pipeline at equal passes: plain reversal, ReNoise, its published options, and presets.

    Args:
        paper: the published settings for the pipeline, which fix the number of steps of all methods but the presets.
        presets: settings by name.  Each is compared as it is and, if its passes may be chosen, at every budget.
        budgets: numbers of network passes, multiples of the number of steps.

    Raises:
        ValueError: a budget that is no multiple of the number of steps.
    """
    steps, bare = paper.num_inference_steps, plain(paper)
    odd = [passes for passes in budgets if passes < steps or passes % steps]
    if odd:
        usual = ", ".join(map(str, default_budgets(steps)))
        raise ValueError(
            f"passes={odd[0]} is no multiple of the {steps} steps, so plain reversal and ReNoise cannot take as many; "
            f"use passes such as {usual}"
        )
    more = [passes for passes in budgets if passes > steps]
    yield from reversals(bare, more)
    yield from renoising(bare, [passes // steps - 1 for passes in more])
    if any(region.weights for region in paper.regions):
        yield from options(paper)
    for name, settings in presets.items():
        yield Method(name, name, settings)
        if settings.method is None and not any(region.weights for region in settings.regions):
            for passes in budgets:
                if passes >= settings.num_inference_steps and passes != settings.passes:
                    yield Method(f"{name}, {passes} passes", name, replace(settings, passes=passes))


def describe(method: Method) -> str:
    """A text of everything that a method's records depend on, besides sampler, weights and pictures."""
    settings = method.settings
    named = replace(settings, solver="renoise", method=None)
    return f"{named} {_named(settings.solver)} {_named(settings.method)} {method.fine}"


def _named(function: object) -> str:
    if isinstance(function, partial):
        return f"{function.func.__name__} {dict(sorted(function.keywords.items()))}"
    return str(getattr(function, "__name__", function))
