"""Make a kind of pipeline known that is not of diffusers, after checking it on a live pipeline.

A row (`renoise.Family`) says what is special about a kind.  `register_family` compares what the package does by that
row with what the pipeline does itself, and takes the row only if they agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renoise import images, models
from renoise.api import invert
from renoise.core.checks import keywords as checked_keywords
from renoise.core.loop import replay
from renoise.core.query import Job
from renoise.core.settings import Region, Settings
from renoise.pipelines.adapter import Adapter
from renoise.pipelines.families import FAMILIES, Family
from renoise.pipelines.kinds_transformer import TRANSFORMERS
from renoise.pipelines.kinds_unet import UNETS
from renoise.pipelines.recorder import recorded
from renoise.pipelines.stand_in import Measure
from renoise.record import Driver, Scene

__all__ = ["Check", "FamilyError", "FamilyReport", "register_family"]

_BUILT_IN = UNETS | TRANSFORMERS
_PARTS = ("scheduler", "vae", "vae_scale_factor", "_execution_device", "progress_bar", "maybe_free_model_hooks")
_STEPS, _WALKED, _ITERATIONS = 20, 0.1, 3


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what was compared.
        number: the difference that was found; None where none could be measured.
        wrong: what is wrong and what to look at; None where nothing is.
    """

    name: str
    number: float | None = None
    wrong: str | None = None


@dataclass(frozen=True)
class FamilyReport:
    """What was compared, in order; a line each as text."""

    checks: tuple[Check, ...]

    def __str__(self) -> str:
        """The report for people."""
        shown = ("" if check.number is None else f" {check.number:.1e}" for check in self.checks)
        return "\n".join(
            f"{'ok   ' if check.wrong is None else 'WRONG'} {check.name}{number}"
            + ("" if check.wrong is None else f": {check.wrong}")
            for check, number in zip(self.checks, shown, strict=True)
        )


class FamilyError(ValueError):
    """A row that does not describe its pipeline.  The message is the report."""

    def __init__(self, name: str, report: FamilyReport) -> None:
        """Takes what was found."""
        super().__init__(f"the row {name!r} does not describe this pipeline, so it is not registered:\n{report}")
        self.report = report


@torch.no_grad()
def register_family(
    name: str,
    family: Family,
    pipe: Any,
    prompt: str | None = "a photo",
    *,
    image: images.Source = models.EXAMPLE,
    pipe_kwargs: Mapping[str, Any] | None = None,
    size: int | tuple[int, int] | None = None,
    guidance_scale: float = 2.0,
) -> FamilyReport:
    """Makes a kind of pipeline known, if its row describes a live pipeline rightly.

    The row is data, such as ``dataclasses.replace(FAMILIES["sd"], pipelines=("MyPipeline",), direct=None)``.  Without
    `direct` the pipeline's own loop is used, which is right whenever that loop steps a diffusers scheduler once per
    timestep.  It takes about sixty network passes to compare, with guidance and without:

    * **form**: the parts and the keywords of the call that the row relies on;
    * **decoding**: the pipeline's own picture, and ours of the same latents (`statistics`, `packed`, `frames`);
    * **generation**: the latents of its own run, and of ours through its loop from the same noise;
    * **drivers**: the latents that are found by calling the network itself and by the pipeline's loop (`direct`);
    * **round trip**, by each driver: what is missed of the auto-encoder's picture, in shares of what plain reversal
      misses.

    Args:
        name: of the kind, which is none of the package's own.  One that was registered before is replaced.
        family: the row.
        pipe: a live pipeline of the kind, with a scheduler that can be inverted; left as it was.
        prompt: what to generate; None where `pipe_kwargs` holds embeddings.
        image: the picture to invert.
        pipe_kwargs: further keywords of the pipeline's call.
        size: (height, width) or one number, in pixels; by default the model's own.
        guidance_scale: of the comparisons with guidance; 1 for a pipeline that takes none.

    Returns:
        The report, in which nothing is wrong.

    Raises:
        FamilyError: something is; its text, and its `report`, say what.
        TypeError, ValueError: a name or a class that is taken, or no row.
    """
    if not isinstance(name, str) or not name or name in _BUILT_IN:
        raise ValueError(f"{name!r} cannot be the name of a kind: pass one that is not among {', '.join(_BUILT_IN)}")
    if not isinstance(family, Family):
        raise TypeError(f"a row is a renoise.Family, not a {type(family).__name__}")
    taken = {kind for row in _BUILT_IN.values() for kind in row.pipelines} & {*family.pipelines}
    if taken:
        raise ValueError(f"{', '.join(sorted(taken))} has a row already: name a class of your own in pipelines=")
    trial = _Trial(pipe, family, prompt, image, checked_keywords("pipe_kwargs", pipe_kwargs), size)
    with _known(name, family) as keep:
        report = FamilyReport(tuple(_checks(trial, guidance_scale)))
        if any(check.wrong for check in report.checks):
            raise FamilyError(name, report)
        keep()
    return report


@contextmanager
def _known(name: str, family: Family) -> Iterator[Callable[[], None]]:
    """Has the row among the known ones inside, and afterwards if it is kept."""
    before, kept = dict(FAMILIES), list[bool]()
    FAMILIES.pop(name, None)
    FAMILIES[name] = family  # the last row that names a class has it
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            FAMILIES.clear()
            FAMILIES.update(before)


@dataclass(frozen=True, eq=False)
class _Trial:
    """What is inverted and generated while a row is checked."""

    pipe: Any
    family: Family
    prompt: str | None
    image: images.Source
    pipe_kwargs: Mapping[str, Any]
    size: int | tuple[int, int] | None

    def scene(self, guidance_scale: float) -> Scene:
        prompts = None if self.prompt is None else (self.prompt,)
        return Scene(prompts, None, guidance_scale, self.pipe_kwargs)

    def invert(self, guidance_scale: float, iterations: int, driver: Driver) -> Any:
        settings = Settings(
            (Region(iterations=iterations),),
            num_inference_steps=_STEPS,
            guidance_scale=guidance_scale,
            inversion_guidance_scale=guidance_scale,
        )
        return invert(
            self.pipe,
            self.image,
            self.prompt,
            preset=settings,
            strength=_WALKED,
            size=self.size,
            driver=driver,
            pipe_kwargs=self.pipe_kwargs,
        )

    @property
    def tolerance(self) -> float:
        """Relative difference of latents that rounding explains, by the precision of the network."""
        network = getattr(self.pipe, "unet", None) or self.pipe.transformer
        return 1e-3 if network.dtype in (torch.float32, torch.float64) else 0.1


def _checks(trial: _Trial, guidance_scale: float) -> Iterator[Check]:
    """One after the other, as far as the earlier ones allow."""
    form = _form(trial)
    yield Check("form", wrong=form)
    if form:
        return
    scales = (1.0,) if guidance_scale <= 1 else (1.0, guidance_scale)
    comparisons: list[Callable[[], Iterator[Check]]] = [lambda: _decoding(trial)]
    comparisons += [lambda scale=scale: _generation(trial, scale) for scale in scales]  # type: ignore[misc]
    comparisons += [lambda scale=scale: _round_trips(trial, scale) for scale in scales]  # type: ignore[misc]
    for compare in comparisons:
        try:
            yield from compare()
        except Exception as error:
            # whatever a foreign pipeline raises is what the report is for
            yield Check("a call of the pipeline", wrong=f"{type(error).__name__}: {error}")
            return


def _form(trial: _Trial) -> str | None:
    """What a pipeline lacks that its row relies on."""
    pipe, family = trial.pipe, trial.family
    classes = [kind.__name__ for kind in type(pipe).__mro__]
    if not set(family.pipelines) & set(classes):
        return f"pipelines={family.pipelines} does not name the class of this pipeline, {classes[0]}"
    lacking = [part for part in _PARTS if not hasattr(pipe, part)]
    if not hasattr(pipe, "unet") and not hasattr(pipe, "transformer"):
        lacking.append("unet or transformer")
    if lacking:
        return f"{classes[0]} has no {', '.join(lacking)}, which every diffusers pipeline has that makes pictures"
    taken = inspect.signature(pipe.__call__).parameters
    handed = {"num_inference_steps", "generator", "output_type", "return_dict", *family.guidance(pipe, 1.0)}
    handed |= {*family.keywords, *family.grid(pipe, 1, (64, 64)), *family.needs}
    missing = sorted(handed - taken.keys())
    return f"its call takes no {', '.join(missing)}: see guidance=, grid=, keywords= of the row" if missing else None


def _stock(trial: _Trial, adapter: Adapter, scale: float, output_type: str) -> Any:
    """What the pipeline itself makes in three steps."""
    call = adapter.call(trial.scene(scale), 3, adapter.size(trial.size))
    seed = torch.Generator(adapter.device).manual_seed(0)
    return trial.pipe(**call.keywords, generator=seed, output_type=output_type, return_dict=False)[0]


def _decoding(trial: _Trial) -> Iterator[Check]:
    adapter = Adapter(trial.pipe)
    with recorded(trial.pipe) as steps:
        latents = _stock(trial, adapter, 1.0, "latent")
    shown = _stock(trial, adapter, 1.0, "pt")
    pictures = torch.as_tensor(shown, dtype=torch.float32).to(adapter.device)
    if not steps.results or not isinstance(latents, Tensor):
        yield Check("decoding", wrong="its loop never steps pipe.scheduler, or output_type='latent' gives no latents")
        return
    ours = adapter.codec.decode(steps.results[-1], adapter.size(trial.size))
    apart = (ours - pictures).abs().mean().item()
    fits = apart < max(trial.tolerance, 0.01)
    yield Check("decoding", apart, None if fits else "ours of the same latents differs; see statistics=, packed=")


def _generation(trial: _Trial, scale: float) -> Iterator[Check]:
    adapter = Adapter(trial.pipe)
    with recorded(trial.pipe) as steps:
        _stock(trial, adapter, scale, "latent")

    def begin(measure: Measure) -> Job[Tensor]:
        table = measure()
        noises = []
        for step, (z_t, z_s, m) in enumerate(zip(steps.latents, steps.results, steps.predictions, strict=True)):
            drawn = float(table.n[step]) != 0
            noise = table.residual_noise(step, z_s.float(), z_t.float(), m.float()) if drawn else None
            noises.append(torch.zeros_like(z_t, dtype=torch.float32) if noise is None else noise)
        return Job(replay(table, steps.latents[0].float(), torch.stack(noises)), table, len(table))

    call = adapter.call(trial.scene(scale), 3, adapter.size(trial.size))
    ours = adapter.run(begin, [call], driver="pipeline", stage="generate")
    stock = steps.results[-1].float()
    apart = ((ours - stock).abs().max() / stock.std()).item()
    name = f"generation at guidance {scale:g}"
    wrong = "through its own loop it is not the pipeline's own; does its loop count rounds, or keep something?"
    yield Check(name, apart, None if apart < trial.tolerance else wrong)


def _round_trips(trial: _Trial, scale: float) -> Iterator[Check]:
    found: dict[Driver, Any] = {"pipeline": trial.invert(scale, _ITERATIONS, "pipeline")}
    if trial.family.direct:
        found["direct"] = trial.invert(scale, _ITERATIONS, "direct")
        one, other = found["pipeline"].latents, found["direct"].latents
        apart = ((one - other).abs().max() / one.std()).item()
        wrong = "the network asked by itself answers otherwise than in the loop; see direct= (time, guide, twice)"
        yield Check(f"drivers at guidance {scale:g}", apart, None if apart < trial.tolerance else wrong)
    plain = trial.invert(scale, 0, "pipeline")
    missed = (plain.regenerate(plain.scene) - plain.round_trip()).square().mean().sqrt()
    for driver, inversion in found.items():
        rest = (inversion.regenerate(inversion.scene) - inversion.round_trip()).square().mean().sqrt()
        share = (rest / missed.clamp(min=1e-6)).item()
        wrong = "renoising does not come closer to the picture than plain reversal does"
        fits = share < 1 or rest.item() < 1e-4
        yield Check(f"round trip, {driver}, guidance {scale:g}", share, None if fits else wrong)
