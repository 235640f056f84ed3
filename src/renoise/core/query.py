"""Questions that the loops put to a network, and who answers them.

The loops of `renoise.core.loop` never call a network.  They yield a `Query` and are sent its answer, so the same loop
runs behind a network that is called directly, behind a pipeline's own loop, or behind a formula in a test.
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
    """Whatever answers queries: a plain function will do."""

    def __call__(self, query: Query, /) -> Tensor:
        """The network's prediction m for every row of `query.z`, guidance included, in the shape of `query.z`."""


@dataclass(frozen=True, eq=False)
class Query:
    """A question for the network: its prediction m at these latents, guidance included, in their shape.

    Attributes:
        z: latents [blocks * batch, ...] in loop space, before the input scale: blocks of the whole batch.
        step: row of the table, which gives timestep and input scale.
        scenes: one number per block: which of the prompts that the denoiser was made with the block is asked about.
            (0,) is the usual question.  (0, 0) asks about the same prompts at two points: the edit losses take their
            target along like this.  (0, 1) asks about two prompts, such as the source and the target of an edit.
        waiting: bool [batch], the images that the query is about; None for all, and wherever there are several blocks.
            The others have met their tolerance: their rows of the answer are not read, so a denoiser may leave them
            out of its work (see `spread`).
    """

    z: Tensor
    step: int
    scenes: tuple[int, ...] = (0,)
    waiting: Tensor | None = None

    @property
    def passes(self) -> int:
        """Network passes that this query costs each image: one per block."""
        return len(self.scenes)

    def answer(self, denoise: Denoiser) -> Tensor:
        """What the loop is sent back.  A kind of query that needs more than a prediction overrides this."""
        return denoise(self)


@dataclass(frozen=True, eq=False)
class Job(Generic[_Result]):
    """Work for a denoiser.

    Attributes:
        queries: what it is to answer; returns the result.
        table: the rows that the queries' steps refer to.
        passes: how many network passes the queries take at most, per image.
    """

    queries: Generator[Query, Tensor, _Result]
    table: StepTable
    passes: int


def spread(m: Tensor, waiting: Tensor) -> Tensor:
    """Answers for the waiting images, as rows of the whole batch; rows of the other images are not a number."""
    whole = m.new_full((len(waiting), *m.shape[1:]), torch.nan)
    whole[waiting] = m
    return whole
