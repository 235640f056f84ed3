"""What the benchmark compares: samplers, and for each sampler the methods of inversion.

A method is a `Settings` of the library.  Methods of other papers (`benchmarks.rivals`) are settings with a solver or a
method of their own.  The library's presets are taken by name, and only their number of passes is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.rivals import blended, damped, edit_friendly, gnri
from renoise.core.settings import Region, Settings, plain
from renoise.presets import PRESETS

__all__ = ["FAMILIES", "SAMPLERS", "Method", "Sampler", "describe", "methods"]

FAMILIES = (
    "plain reversal",
    "ReNoise",
    "ReNoise, its options",
    "AIDI",
    "damped",
    "GNRI",
    "edit-friendly",
    "Anderson",
    "matched noise",
    "ours, latent only",
    "ours, noise absorbs",
)
# `prior` and `flattest` of GNRI; with 0 and 0.1 it diverges (validation split, ancestral Euler)
_PRIOR, _FLATTEST = 0.1, 2.0


@dataclass(frozen=True)
class Sampler:
    """A model with a scheduler.

    Attributes:
        model: name of an embedded model.
        scheduler: name of a diffusers scheduler class, None for the model's own.
        paper: name of the preset for the published method.  Its number of steps is used for every method.
        iterations: numbers K of renoising iterations to compare.
        fine: numbers of steps for plain reversals that invert in more steps, at the same cost as other methods.
        guidance: guidance scale of edits.
    """

    model: str
    scheduler: str | None
    paper: str
    iterations: tuple[int, ...]
    fine: tuple[int, ...]
    guidance: float = 1.0

    @property
    def few_step(self) -> bool:
        return PRESETS[self.paper].settings.num_inference_steps < 10


SAMPLERS = {
    "ancestral Euler, 4 steps": Sampler("emoji-turbo", None, "paper-sdxl-turbo", (1, 4, 9, 19), (8, 20, 40)),
    "LCM, 4 steps": Sampler("emoji-turbo", "LCMScheduler", "paper-lcm", (1, 4, 9, 19), (8, 20, 40)),
    "DDIM, 50 steps": Sampler("emoji", None, "paper-sd", (1, 3), (100,), guidance=4.0),
    "Euler, 50 steps": Sampler("emoji", "EulerDiscreteScheduler", "paper-sd", (1, 3), (), guidance=4.0),
}


@dataclass(frozen=True)
class Method:
    """One row of a sampler's table.

    Attributes:
        name: name of the method, unique within the sampler.
        family: one of `FAMILIES`.  The methods of a family are drawn as one line.
        settings: how to invert, and the number of steps to generate with.
        gradients: whether each pass also has a backward pass through the network.
        fine: number of inversion steps if it differs from that of the settings.
        handful: whether this method is among the few whose edits are made with --edits few.
    """

    name: str
    family: str
    settings: Settings
    gradients: bool = False
    fine: int | None = None
    handful: bool = False


def methods(sampler: Sampler) -> Iterator[Method]:
    """Every method to compare on a sampler."""
    paper = replace(PRESETS[sampler.paper].settings, guidance_scale=sampler.guidance)
    bare = plain(paper)
    steps = bare.num_inference_steps
    yield Method("plain reversal", "plain reversal", bare, handful=True)
    for fine in sampler.fine:
        yield Method(f"plain reversal, {fine} inversion steps", "plain reversal", bare, fine=fine)
    yield from _renoise(sampler, paper, bare)
    budgets = tuple(steps * (iterations + 1) for iterations in sampler.iterations if iterations < 10)
    yield from _rivals(sampler, bare, budgets)
    for passes in budgets:
        anderson = replace(bare, solver="anderson", regions=(Region(iterations=passes // steps - 1),))
        yield Method(f"Anderson, {passes} passes", "Anderson", anderson)
    yield from _ours(sampler, steps)


def _renoise(sampler: Sampler, paper: Settings, bare: Settings) -> Iterator[Method]:
    for iterations in sampler.iterations:
        settings = replace(bare, regions=(Region(iterations=iterations),))
        yield Method(f"ReNoise K={iterations}", "ReNoise", settings, handful=iterations in (3, 9))
    options = "ReNoise, its options"
    yield Method("+ averaging", options, replace(paper, edit_losses=None, correction=0.0))
    nine = PRESETS["paper-sdxl-turbo"].settings.regions
    if sampler.few_step and len(nine[0].weights or ()) != len(paper.regions[0].weights or ()):
        regions = tuple(replace(new, below=own.below) for new, own in zip(nine, paper.regions, strict=True))
        yield Method("K=9 + averaging", options, replace(paper, regions=regions, edit_losses=None, correction=0.0))
    yield Method("+ edit losses", options, replace(paper, correction=0.0), handful=not paper.correction)
    if paper.correction:
        yield Method("+ noise correction", options, paper, handful=True)
        yield Method("averaging + correction", options, replace(paper, edit_losses=None))


def _rivals(sampler: Sampler, bare: Settings, budgets: tuple[int, ...]) -> Iterator[Method]:
    steps = bare.num_inference_steps
    for passes in budgets:
        for name, solver in (("AIDI", blended), ("damped", damped)):
            settings = replace(bare, solver=solver, regions=(Region(iterations=passes // steps - 1),))
            yield Method(f"{name}, {passes} passes", name, settings)
    for each in (1, 2, 5) if sampler.few_step else (1, 2):
        method = partial(gnri, passes=each, prior=_PRIOR, flattest=_FLATTEST)
        settings = replace(bare, method=method, passes=steps * each)
        yield Method(f"GNRI, {steps * each} passes", "GNRI", settings, gradients=True, handful=each == 2)
    if sampler.few_step:
        settings = replace(bare, method=edit_friendly, passes=steps - 1)
        yield Method("edit-friendly", "edit-friendly", settings, handful=True)


def _ours(sampler: Sampler, steps: int) -> Iterator[Method]:
    def preset(name: str, passes: int) -> Settings:
        chosen = replace(PRESETS[name].settings, passes=passes, num_inference_steps=steps)
        return replace(chosen, guidance_scale=sampler.guidance)

    if not sampler.few_step:
        for passes in (steps + 1, 2 * steps + 1):
            yield Method(f"many-step, {passes} passes", "ours, latent only", preset("many-step", passes), handful=True)
        return
    for passes in (8, 12, 20, 40):
        settings = preset("fast-latent", passes)
        yield Method(f"fast-latent, {passes} passes", "ours, latent only", settings, handful=passes == 20)
        yield Method(f"matched noise, {passes} passes", "matched noise", replace(settings, noise="matched"))
    for passes in (4, 8, 12, 16, 20):
        settings = preset("few-step", passes)
        yield Method(f"few-step, {passes} passes", "ours, noise absorbs", settings, handful=passes in (8, 16))


def describe(method: Method) -> str:
    """A text of everything that a method's records depend on, besides sampler, weights and pictures."""
    settings = method.settings
    named = replace(settings, solver="renoise", method=None)
    return f"{named} {_named(settings.solver)} {_named(settings.method)} {method.fine}"


def _named(function: object) -> str:
    if isinstance(function, partial):
        return f"{function.func.__name__} {dict(sorted(function.keywords.items()))}"
    return str(getattr(function, "__name__", function))
