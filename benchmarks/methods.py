"""What the benchmark compares: samplers, and for each sampler the methods of inversion.

A method is a `Settings` of the library (see `renoise.evaluation.methods`).  Methods of other papers (in
`benchmarks.rivals`) are settings with a solver or a method of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.rivals import blended, damped, edit_friendly, gnri
from renoise.core.settings import Region, Settings, plain
from renoise.evaluation.methods import Method, options, renoising, reversals
from renoise.evaluation.plots import Look
from renoise.presets import PRESETS

__all__ = ["SAMPLERS", "STYLE", "Sampler", "edited", "methods"]

# The families of methods, in the order of the legend, with their looks: colours of Okabe and Ito, and thick lines for
# this library's own.
STYLE: dict[str, Look] = {
    "plain reversal": ("#999999", "s", False),
    "ReNoise": ("#000000", "o", False),
    "ReNoise, its options": ("#000000", "x", False),
    "AIDI": ("#E69F00", "v", False),
    "damped": ("#B8860B", ">", False),
    "GNRI": ("#CC79A7", "P", False),
    "edit-friendly": ("#8B5A2B", "D", False),
    "Anderson": ("#56B4E9", "^", False),
    "matched noise": ("#009E73", "<", False),
    "ours, latent only": ("#0072B2", "o", True),
    "ours, noise absorbs": ("#D55E00", "o", True),
}
# The methods whose edits are made with --edits few.
_EDITED = ("plain reversal", "edit-friendly", "ReNoise K=3", "ReNoise K=9", "GNRI, 8 passes", "GNRI, 100 passes")
_EDITED_OURS = ("fast-latent, 20 passes", "few-step, 8 passes", "few-step, 16 passes", "sharp, 20", "many-step, ")
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
    "sharp model, ancestral Euler, 4 steps": Sampler("emoji-turbo-sharp", None, "paper-sdxl-turbo", (1, 4, 9), ()),
    "sharp model, LCM, 4 steps": Sampler("emoji-turbo-sharp", "LCMScheduler", "paper-lcm", (1, 4, 9), ()),
    "DDIM, 50 steps": Sampler("emoji", None, "paper-sd", (1, 3), (100,), guidance=4.0),
    "Euler, 50 steps": Sampler("emoji", "EulerDiscreteScheduler", "paper-sd", (1, 3), (), guidance=4.0),
}


def methods(sampler: Sampler) -> Iterator[Method]:
    """Every method to compare on a sampler."""
    paper = replace(PRESETS[sampler.paper].settings, guidance_scale=sampler.guidance)
    bare = plain(paper)
    steps = bare.num_inference_steps
    yield from reversals(bare, sampler.fine)
    yield from renoising(bare, sampler.iterations)
    yield from options(paper)
    budgets = tuple(steps * (iterations + 1) for iterations in sampler.iterations if iterations < 10)
    yield from _rivals(sampler, bare, budgets)
    for passes in budgets:
        anderson = replace(bare, solver="anderson", regions=(Region(iterations=passes // steps - 1),))
        yield Method(f"Anderson, {passes} passes", "Anderson", anderson)
    yield from _ours(sampler, steps)


def edited(sampler: Sampler, method: Method) -> bool:
    """Whether this method is among the few whose edits are made with --edits few: one or two of a family."""
    last = "+ noise correction" if PRESETS[sampler.paper].settings.correction else "+ edit losses"
    return method.name in (*_EDITED, last) or method.name.startswith(_EDITED_OURS)


def _rivals(sampler: Sampler, bare: Settings, budgets: tuple[int, ...]) -> Iterator[Method]:
    steps = bare.num_inference_steps
    for passes in budgets:
        for name, solver in (("AIDI", blended), ("damped", damped)):
            settings = replace(bare, solver=solver, regions=(Region(iterations=passes // steps - 1),))
            yield Method(f"{name}, {passes} passes", name, settings)
    for each in (1, 2, 5) if sampler.few_step else (1, 2):
        method = partial(gnri, passes=each, prior=_PRIOR, flattest=_FLATTEST)
        settings = replace(bare, method=method, passes=steps * each)
        yield Method(f"GNRI, {steps * each} passes", "GNRI", settings, gradients=True)
    if sampler.few_step:
        settings = replace(bare, method=edit_friendly, passes=steps - 1)
        yield Method("edit-friendly", "edit-friendly", settings)


def _ours(sampler: Sampler, steps: int) -> Iterator[Method]:
    def preset(name: str, passes: int) -> Settings:
        chosen = replace(PRESETS[name].settings, passes=passes, num_inference_steps=steps)
        return replace(chosen, guidance_scale=sampler.guidance)

    if not sampler.few_step:
        for passes in (steps + 1, 2 * steps + 1):
            yield Method(f"many-step, {passes} passes", "ours, latent only", preset("many-step", passes))
        return
    for passes in (8, 12, 20, 40):
        settings = preset("fast-latent", passes)
        yield Method(f"fast-latent, {passes} passes", "ours, latent only", settings)
        yield Method(f"matched noise, {passes} passes", "matched noise", replace(settings, noise="matched"))
    for passes in (4, 8, 12, 16, 20):
        settings = preset("few-step", passes)
        yield Method(f"few-step, {passes} passes", "ours, noise absorbs", settings)
    yield Method("sharp, 20 passes", "ours, noise absorbs", PRESETS["sharp"].settings)
