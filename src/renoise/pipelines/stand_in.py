"""The universal driver: a stand-in scheduler through which an unmodified pipeline answers the queries of an inversion.

Every diffusers pipeline runs one loop of one shape: for each timestep it asks its networks for a prediction, guidance
and adapters included, and hands that to `scheduler.step`.  For the time of one call the pipeline's scheduler is
replaced by an object of the same class whose `step` feeds the prediction to the generator of queries and returns the
latents of its next query.  `timesteps` goes on for as long as the generator asks.  The loop never knows; LoRA,
adapters, offload and quantisation stay as the user set them up.

The first evaluation of a call is discarded.  The pipeline makes it on latents of its own; it only reveals the latents'
shape and dtype.  So a call takes one evaluation more than the generator asks for.  A keyword that counts the rounds of
the pipeline's loop (skip-layer guidance, the start and end of a ControlNet) would count passes here, and not steps:
`renoise.pipelines.keywords` refuses those.

Where the steps are known beforehand, as in a replay, the pipeline's scheduler is not asked for any: whatever scheduler
it has by then, the stand-in hands over the known timesteps.

A call shows all of its scenes (`Query.scenes`) at once, one batch after the other, so an evaluation answers at most one
block about each of them.  A query with several blocks about one scene takes several evaluations.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from renoise.core.query import Job, Query
from renoise.core.table import StepTable
from renoise.pipelines.known_steps import Known, check_scheduler, disguise
from renoise.pipelines.measure import measure

__all__ = ["Measure", "no_bar", "placed", "stand_in", "through"]

_Result = TypeVar("_Result")
Measure = Callable[[], StepTable]


def through(
    pipe: Any,
    begin: Callable[[Measure], Job[_Result]],
    keywords: Mapping[str, Any],
    *,
    scenes: int = 1,
    steps: StepTable | None = None,
    on_begin: Callable[[int], object] | None = None,
    on_pass: Callable[[int], object] | None = None,
) -> _Result:
    """Answers the queries of a job by one call of the pipeline.

    Args:
        pipe: any diffusers pipeline with the usual loop; it and its scheduler are left as they were, whatever happens.
        begin: called once, with a function that measures the scheduler as the pipeline itself has set it up.
        keywords: of the pipeline's call.
        scenes: how many scenes these keywords show, one batch after the other.
        steps: the job's table where it is known beforehand; the scheduler is then not set up.
        on_begin: called with the job's passes when they are known; what it raises ends the call.
        on_pass: called after each query with the passes it cost each image, likewise.

    Returns:
        What the job's generator returns.

    Raises:
        RuntimeError: the pipeline is already answering another inversion, or its loop ended before the queries did.
        NotInvertible: see `renoise.pipelines.measure`.
    """

    def start(measured: Measure) -> Job[_Result]:
        job = begin(measured)
        if on_begin:
            on_begin(job.passes)
        return job

    standing = stand_in(pipe.scheduler, start, float(keywords.get("eta") or 0.0), scenes, on_pass, steps=steps)
    with placed(pipe, standing), no_bar(pipe):
        # a generator for the discarded latents, so that the global one is not drawn from
        pipe(**keywords, generator=torch.Generator().manual_seed(0), output_type="latent", return_dict=False)
    if not standing.ended:
        raise RuntimeError(
            f"{type(pipe).__name__} ended its loop before the inversion did: a callback that interrupts it, or a "
            "keyword in pipe_kwargs that cuts its timesteps; leave that out"
        )
    result: _Result = standing.result
    return result


@contextmanager
def placed(pipe: Any, scheduler: Any) -> Iterator[None]:
    """Has `scheduler` on the pipeline inside, and the pipeline's own again afterwards."""
    original = pipe.scheduler
    check_scheduler(original)  # or the stand-in of another call would be put back in the end
    pipe.scheduler = scheduler
    try:
        yield
    finally:
        pipe.scheduler = original


class _StandIn(Known):
    """What a stand-in does differently from the scheduler whose class it shares; see `stand_in`."""

    def __init__(
        self,
        scheduler: Any,
        begin: Callable[[Measure], Job[Any]],
        eta: float,
        scenes: int,
        on_pass: Callable[[int], object] | None,
        steps: StepTable | None,
        on_schedule: Callable[[Mapping[str, Any]], object] | None,
    ) -> None:
        self._real = copy.deepcopy(scheduler)
        self.__dict__.update(self._real.__dict__)
        self._begin, self._eta, self._scenes, self._on_pass = begin, eta, scenes, on_pass
        self._steps_known, self._on_schedule = steps, on_schedule
        self.ended, self.result = False, None

    def set_timesteps(self, *arguments: Any, **keywords: Any) -> None:
        """Sets the steps up as the pipeline wants them, measures them where they are not known, and begins the job."""
        if self._steps_known is None:
            self._real.set_timesteps(*arguments, **keywords)
            self.__dict__.update(self._real.__dict__)
            self.timesteps = self._real.timesteps
        else:
            asked = inspect.signature(Known.set_timesteps).bind(self, *arguments, **keywords).arguments
            if self._on_schedule:
                self._on_schedule(asked)
            super().set_timesteps(*arguments, **keywords)
        self._job = self._begin(lambda: measure(self._real, eta=self._eta))
        self.ended, self.result = False, None
        self._steps = 0
        self._ask(next(self._job.queries))
        self._grid = self._job.table.network_timesteps().to(self.timesteps.device)
        # as long as the loop will be, for pipelines that prepare something for each of its rounds
        rounds = self._grid[-1:].repeat(self._job.passes + 1)
        rounds[: len(self._grid)] = self._grid[: len(rounds)]
        self.timesteps = _Timesteps.over(rounds, self._rounds)

    def _rounds(self) -> Iterator[Tensor]:
        stepped = -1
        while not self.ended and self._steps != stepped:  # a round without a step: the loop was interrupted
            stepped = self._steps
            yield self._grid[self._query.step]

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The input scale of the queried step."""
        return sample * float(self._job.table.input_scale[self._query.step])

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *_: Any, **options: Any) -> Any:
        """Takes a prediction and returns the latents asked about next; at the end the result, if latents."""
        if self.ended:
            raise RuntimeError("the pipeline went on after the inversion had ended")
        self._steps += 1
        if self._steps > 1:  # the first evaluation is discarded
            if not _same(sample, self._shown().to(sample.device, sample.dtype)):
                raise ValueError(
                    "a callback changed the latents, which are those of the inversion here: have it return none; to "
                    "change a picture, use inv.edit"
                )
            self._take(model_output.detach())
        if self.ended and isinstance(self.result, Tensor):
            z = self.result.repeat(self._scenes, *[1] * (self.result.ndim - 1))
        else:
            z = self._shown()
        if z.shape != sample.shape:
            raise ValueError(
                f"{list(z.shape)} latents of the picture do not fit the {list(sample.shape)} of the pipeline's loop: "
                "pass one prompt per picture, and the size by size="
            )
        z = z.to(sample.device, sample.dtype)
        if options.get("return_dict", True):
            return SimpleNamespace(prev_sample=z, pred_original_sample=z, denoised=z)
        return z, z  # latent consistency pipelines decode the second

    def _shown(self) -> Tensor:
        """The latents that the network is asked about next, one batch for each scene."""
        blocks = self._query.z.chunk(len(self._query.scenes))
        return torch.cat([blocks[block or 0] for block in self._rounds_left[0]])

    def _ask(self, query: Query) -> None:
        """Begins a query: which block of it each scene is shown at each evaluation, None for nothing new."""
        if type(query) is not Query:
            raise TypeError(
                f"a {type(query).__name__} asks for more than predictions, and the pipeline's own loop gives no more: "
                "pass driver='direct'"
            )
        if max(query.scenes) >= self._scenes:
            raise ValueError(
                f"a query about scene {max(query.scenes)}, and {self._scenes} is shown: pass one call a scene"
            )
        blocks = [
            [block for block, shown in enumerate(query.scenes) if shown == scene] for scene in range(self._scenes)
        ]
        self._query, self._answers = query, [query.z] * len(query.scenes)
        self._rounds_left = list(itertools.zip_longest(*blocks))

    def _take(self, answer: Tensor) -> None:
        """Keeps the answer of one evaluation; sends them all where they are complete."""
        query, wide = self._query, torch.promote_types(answer.dtype, torch.float32)
        for block, rows in zip(self._rounds_left[0], answer.chunk(self._scenes), strict=True):
            if block is not None:
                self._answers[block] = rows.to(query.z.device, wide)
        if len(self._rounds_left) > 1:
            self._rounds_left.pop(0)
            return
        if self._on_pass:
            self._on_pass(query.passes)
        try:
            following = self._job.queries.send(torch.cat(self._answers))
        except StopIteration as stop:
            self.ended, self.result = True, stop.value
        else:
            self._ask(following)


def stand_in(
    scheduler: Any,
    begin: Callable[[Measure], Job[Any]],
    eta: float = 0.0,
    scenes: int = 1,
    on_pass: Callable[[int], object] | None = None,
    *,
    steps: StepTable | None = None,
    on_schedule: Callable[[Mapping[str, Any]], object] | None = None,
) -> Any:
    """A stand-in of the scheduler's own class, since pipelines test for classes and read signatures.

    Args:
        scheduler: that of the pipeline.
        begin: see `through`, as for the three that follow.
        eta: share of fresh noise with which the scheduler is measured.
        scenes: how many scenes the call shows.
        on_pass: called after each query.
        steps: the job's table where it is known beforehand.
        on_schedule: where it is, called with the arguments of `set_timesteps`, by name; may refuse them.
    """
    check_scheduler(scheduler)
    kind = type(scheduler)
    # pipelines look for sigmas, timesteps, eta and generator among the parameters
    signature_of = kind.set_timesteps if steps is None else Known.set_timesteps
    methods = {
        "set_timesteps": functools.wraps(signature_of)(lambda self, *a, **k: _StandIn.set_timesteps(self, *a, **k)),
        "step": functools.wraps(kind.step)(lambda self, *a, **k: _StandIn.step(self, *a, **k)),
        **disguise(kind),
    }
    made = type(kind.__name__, (_StandIn, kind), methods)
    return made(scheduler, begin, eta, scenes, on_pass, steps, on_schedule)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether latents are equal, where they are not a number too."""
    return a.shape == b.shape and bool(((a == b) | (a != a) & (b != b)).all())


class _Timesteps(torch.Tensor):
    """Timesteps with real values whose iteration asks a function how to go on; all computed from it is plain."""

    rounds: Callable[[], Iterator[Tensor]]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def over(cls, values: Tensor, rounds: Callable[[], Iterator[Tensor]]) -> _Timesteps:
        timesteps = values.as_subclass(cls)
        timesteps.rounds = rounds
        return timesteps

    def __iter__(self) -> Iterator[Tensor]:
        return self.rounds()

    def __getitem__(self, index: Any) -> Tensor:
        """Itself where all of it is asked for, as by pipelines that start from a picture."""
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self
        return super().__getitem__(index)


@contextmanager
def no_bar(pipe: Any) -> Iterator[None]:
    """Without the pipeline's own progress bar, which would count to the wrong end."""
    before = getattr(pipe, "_progress_bar_config", None)
    pipe._progress_bar_config = {**(before or {}), "disable": True}
    try:
        yield
    finally:
        if before is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = before
