"""A pipeline of diffusers, wrapped once: what it is, how pictures become its latents, and how it answers queries.

Whoever works on a pipeline makes one `Adapter` and hands it down.  Family, device, codec, keywords and drivers are
resolved here and nowhere else.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from renoise.core.loop import drive
from renoise.core.progress import Progress, checked
from renoise.core.query import Job
from renoise.core.table import StepTable
from renoise.pipelines.advice import advice
from renoise.pipelines.codecs import Codec
from renoise.pipelines.direct import DirectDenoiser, Rehearsal, rehearse
from renoise.pipelines.families import EMBEDDINGS, FAMILIES, Family, denoiser, family
from renoise.pipelines.keywords import Call, call_keywords, joined_keywords, prompt_count
from renoise.pipelines.known_steps import check_scheduler
from renoise.pipelines.measure import NotInvertible, measure
from renoise.pipelines.pass_bar import PassBar
from renoise.pipelines.stand_in import Measure, through
from renoise.pipelines.turns import check_free, turn
from renoise.record import Driver, Scene

__all__ = ["Adapter"]

_Result = TypeVar("_Result")


class Adapter:
    """What this package needs of a pipeline.

    Attributes:
        pipe: the pipeline, left as it was by everything here.
        name: key of its row in `families.FAMILIES`.
        family: that row.
        device: where its networks run.
        codec: its auto-encoder.
    """

    def __init__(self, pipe: Any) -> None:
        """Wraps a pipeline.

        Raises:
            TypeError: a pipeline of no known kind; names the class and what works.
            RuntimeError: a pipeline that is in the middle of an inversion or of replaying one.
        """
        self._has_turn = False
        self.pipe = pipe
        self.name = family(pipe)
        check_free(pipe)
        self.family: Family = FAMILIES[self.name]
        self.device = pipe._execution_device
        self.codec = Codec(pipe, self.family, self.device)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Has the pipeline to itself inside; may be entered again inside, by the same adapter.

        Raises:
            RuntimeError: the pipeline is in the middle of an inversion or of replaying one.
            ValueError: a network with a step cache.
        """
        if self._has_turn:
            yield
            return
        if getattr(denoiser(self.pipe), "is_cache_enabled", False):
            raise ValueError(
                f"the network of this {type(self.pipe).__name__} has a step cache, which repeats answers to other "
                "questions: do pipe.transformer.disable_cache() first"
            )
        with turn(self.pipe):
            self._has_turn = True
            try:
                yield
            finally:
                self._has_turn = False

    @property
    def few_step(self) -> bool:
        """Whether a flow-matching pipeline says of itself that it was distilled to few steps.

        FLUX.1 schnell and FLUX.2 klein do.  Others do not (SD3.5 Turbo, Z-Image Turbo): pass num_inference_steps and a
        preset.
        """
        return self.family.few_step is not None and self.family.few_step(self.pipe)

    def warn_of_guidance(self, *given: float | None) -> None:
        """Warns where guidance is asked for that the network was distilled to do without, as FLUX.1 schnell was."""
        if self.family.ignores_guidance(self.pipe) and any(scale is not None and scale > 1 for scale in given):
            warnings.warn(
                f"guidance has no effect: the network of this {type(self.pipe).__name__} was distilled to do without, "
                "and its loop does not read guidance_scale; leave it out",
                stacklevel=3,
            )

    def size(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """(height, width) in pixels that the pipeline can work at: the one given, or the model's own.

        Raises:
            ValueError: not one or two positive whole numbers, or no multiple of what the networks need.
        """
        factor: int = self.pipe.vae_scale_factor
        if size is None:
            config = denoiser(self.pipe).config
            side = getattr(self.pipe, "default_sample_size", None) or getattr(config, "sample_size", None) or 128
            height, width = side if isinstance(side, (list, tuple)) else (side, side)
            return height * factor, width * factor
        step = math.lcm(8, factor * max(1, self.family.patch))  # every pipeline of diffusers asks for 8
        sides = size if isinstance(size, (list, tuple)) else (size, size)
        whole = all(isinstance(side, int) and side > 0 and side % step == 0 for side in sides)
        if len(sides) != 2 or not whole:
            raise ValueError(
                f"size={size!r} does not fit this model: pass one number or (height, width), multiples of {step}, "
                f"e.g. {(8 * step, 8 * step)}"
            )
        return sides[0], sides[1]

    def driver(self, wanted: Driver | None, pipe_kwargs: Mapping[str, Any]) -> Driver:
        """How the pipeline is to be asked: as wanted, or directly where its kind and its keywords allow that.

        Raises:
            ValueError: no driver, or "direct" for what only the pipeline's own loop can do.
        """
        others = sorted(pipe_kwargs.keys() - EMBEDDINGS - {*self.family.conditions})
        if wanted is not None and (not isinstance(wanted, str) or wanted not in ("direct", "pipeline")):
            raise ValueError(f"driver={wanted!r} is neither 'direct' nor 'pipeline'")
        if wanted == "direct" and not self.family.direct:
            raise ValueError(
                f"driver='direct' does not know {type(self.pipe).__name__}: leave it out, or pass 'pipeline'"
            )
        if wanted == "direct" and others:
            read = " and ".join(("embeddings of prompts", *self.family.conditions))
            raise ValueError(
                f"driver='direct' reads {read} in pipe_kwargs, not {', '.join(others)}: leave it out, or use 'pipeline'"
            )
        return wanted or ("direct" if self.family.direct and not others else "pipeline")

    def answers_directly(self, scenes: Sequence[Scene]) -> bool:
        """Whether these scenes can be asked about without the pipeline's own loop."""
        return all(self.driver(None, scene.pipe_kwargs) == "direct" for scene in scenes)

    def call(self, scene: Scene, num_inference_steps: int, size: tuple[int, int], pictures: int | None = None) -> Call:
        """The call of the pipeline that shows a scene.

        Args:
            scene: what to show.
            num_inference_steps: steps of the whole schedule.
            size: (height, width) in pixels.
            pictures: how many pictures it has to show; None for as many as there are prompts.

        Raises:
            TypeError, ValueError: see `keywords.call_keywords`; or not one prompt per picture.
        """
        keywords = call_keywords(self.pipe, self.family, scene)
        batch = prompt_count(keywords)
        grid = self.family.grid(self.pipe, batch, size)
        if pictures not in (None, batch):
            raise ValueError(f"{pictures} pictures and {batch} rows of prompt_embeds: pass one prompt per picture")
        steps = {"num_inference_steps": num_inference_steps}
        return Call({**grid, **keywords, **steps}, scene.guidance_scale, batch)

    def schedule(self, num_inference_steps: int) -> StepTable:
        """The steps of the pipeline's scheduler after a plain set_timesteps, as UNet pipelines set theirs up.

        Raises:
            NotInvertible: see `renoise.pipelines.measure`.
            ValueError: more steps than the model has noise levels.
        """
        own = self.pipe.scheduler  # read once: by the next line, another thread may have placed a stand-in
        check_scheduler(own)
        trained = own.config.num_train_timesteps
        if num_inference_steps > trained:
            raise ValueError(
                f"num_inference_steps={num_inference_steps} is more than the {trained} noise levels of this model; "
                "50 is usual, 4 for few-step models"
            )
        scheduler = copy.deepcopy(own)
        try:
            scheduler.set_timesteps(num_inference_steps)
        except Exception as error:
            name, remedy = type(scheduler).__name__, advice(scheduler)
            raise NotInvertible(
                f"{name} cannot be inverted: its set_timesteps({num_inference_steps}) fails ({error})"
                + (f". Use instead: {remedy}" if remedy else "")
            ) from error
        return measure(scheduler)

    def known_schedule(self, driver: Driver, num_inference_steps: int) -> StepTable | None:
        """The steps, where they follow from scheduler and number alone.

        None where the pipeline's own loop decides, by the size of the picture or by keywords.
        """
        return self.schedule(num_inference_steps) if driver == "direct" and self.family.plain_schedule else None

    def rehearsals(self, calls: Sequence[Call], steps: StepTable | None = None) -> list[Rehearsal]:
        """Each call of the pipeline up to its network: all that a direct denoiser needs.

        Args:
            calls: one for each scene.
            steps: the table where it is known beforehand.

        Raises:
            TypeError: a kind of pipeline without a direct driver.
        """
        loop = self.family.direct
        if loop is None:
            raise TypeError(f"{type(self.pipe).__name__} has no direct driver: use its own loop, driver='pipeline'")
        return [rehearse(self.pipe, call, loop, steps) for call in calls]

    def denoiser(self, rehearsals: Sequence[Rehearsal], table: StepTable) -> DirectDenoiser:
        """Answers queries about the rehearsed scenes on the steps of a table."""
        assert self.family.direct is not None
        return DirectDenoiser(rehearsals, self.family.direct, table)

    def run(
        self,
        begin: Callable[[Measure], Job[_Result]],
        calls: Sequence[Call],
        *,
        driver: Driver,
        stage: str,
        steps: StepTable | None = None,
        progress: Progress | None = None,
    ) -> _Result:
        """Has the pipeline answer a job.

        The pipeline, its scheduler and its offloaded networks are as before afterwards, whatever happens.

        Args:
            begin: makes the job, given a function that measures the steps as the pipeline has set them up.
            calls: one for each scene that the job may ask about (`Query.scenes`), of the same number of pictures.
            driver: "direct" or "pipeline".
            stage: what progress calls this.
            steps: the job's table where it is known beforehand: the pipeline's scheduler is then not asked for its
                steps, and may be another one by now.
            progress: told of every pass; by default the pipeline's own progress bar.

        Returns:
            What the job's queries return.

        Raises:
            Cancelled: `progress` was asked to stop.
            RuntimeError: the pipeline is already answering another inversion.
            ValueError: a network with a step cache, or scenes that one call of the pipeline cannot show together.
        """
        checked(progress)
        with self.turn(), self.freeing(), self._own_attention():
            told = progress or PassBar(self.pipe)
            try:
                if driver == "pipeline":
                    return through(
                        self.pipe,
                        begin,
                        joined_keywords(calls, self.family.together),
                        scenes=len(calls),
                        steps=steps,
                        on_begin=lambda passes: told.begin(stage, passes),
                        on_pass=told.advance,
                    )
                rehearsals = self.rehearsals(calls, steps)
                job = begin(rehearsals[0].measure)
                told.begin(stage, job.passes)
                return drive(job.queries, self.denoiser(rehearsals, job.table), told.advance)
            finally:
                told.end()

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        """Puts the network's attention processors back where a call that exchanges them is ended by an error."""
        if not self.family.exchanges_attention:
            yield
            return
        network = denoiser(self.pipe)
        processors = network.attn_processors
        try:
            yield
        finally:
            network.set_attn_processor(processors)

    @contextmanager
    def freeing(self) -> Iterator[None]:
        """Gives offloaded networks back in the end, whatever happens: with hooks, the last one stays on its device."""
        try:
            yield
        finally:
            self.pipe.maybe_free_model_hooks()
