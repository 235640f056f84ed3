"""Queries: what the loops ask of a network, and who answers.

The loops of `renoise.core.loop` never call a network.  They yield a `Query` and are sent its answer.  So the same loop
works with a network that is called directly, with a pipeline's own loop, and with a formula in a test.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from renoise.core.table import StepTable

__all__ = ["Denoiser", "Job", "Query", "spread"]

_Result = TypeVar("_Result")


class Denoiser(Protocol):
    """Anything that answers queries, such as a plain function."""

    def __call__(self, query: Query, /) -> Tensor:
        """The network's prediction m at every row of `query.z`, guidance included, in the shape of `query.z`."""


@dataclass(frozen=True, eq=False)
class Query:
    """Asks for the network's prediction m at these latents, guidance included, in their shape.

    Attributes:
        z: latents [blocks * batch, ...] in loop space, before the input scale.  A block is one copy of the batch.
        step: row of the table, which gives timestep and input scale.
        scenes: one number per block, which says with which of the denoiser's scenes (prompts, guidance, further
            inputs) the block is evaluated.  (0,) is the usual query.  (0, 0) evaluates one scene at two points, as the
            edit losses do for their target.  (0, 1) evaluates two scenes, such as the source and the target of an edit.
        waiting: bool [batch], the images whose prediction is needed.  None means all, and it is always None if there
            are several blocks.  The other images have met their tolerance.  Their rows of the answer are not read, so
            a denoiser may leave them out (see `spread`).
    """

    z: Tensor
    step: int
    scenes: tuple[int, ...] = (0,)
    waiting: Tensor | None = None

    @property
    def passes(self) -> int:
        """Network passes that this query takes per image: one per block."""
        return len(self.scenes)

    def answer(self, denoise: Denoiser) -> Tensor:
        """What the loop is sent.  A subclass that needs more than a prediction overrides this."""
        return denoise(self)


@dataclass(frozen=True, eq=False)
class Job(Generic[_Result]):
    """Work for a denoiser.

    Attributes:
        queries: generator that yields queries, is sent their answers, and returns the result.
        table: the sampler's rows, to which the steps of the queries refer.
        passes: how many network passes per image the queries take at most.
    """

    queries: Generator[Query, Tensor, _Result]
    table: StepTable
    passes: int


def spread(m: Tensor, waiting: Tensor) -> Tensor:
    """Predictions for the waiting images only, spread over the rows of the whole batch.

    Args:
        m: predictions [waiting images, ...].
        waiting: bool [batch].

    Returns:
        [batch, ...], NaN in the rows of the other images.
    """
    whole = m.new_full((len(waiting), *m.shape[1:]), torch.nan)
    whole[waiting] = m
    return whole
