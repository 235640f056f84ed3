"""What a pipeline's own scheduler is handed, and what it returns, while the pipeline runs as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from renoise.pipelines.known_steps import disguise
from renoise.pipelines.stand_in import placed

__all__ = ["Recorded", "recorded"]


@dataclass(eq=False)
class Recorded:
    """One entry per step, in the order of the steps.

    Attributes:
        latents: that the step began with.
        predictions: that the network made, guidance included.
        results: the latents that the scheduler returned.
    """

    latents: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    results: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded(pipe: Any) -> Iterator[Recorded]:
    """Records the steps that the pipeline takes inside; it has its own scheduler again afterwards."""
    recording, steps = copy.deepcopy(pipe.scheduler), Recorded()
    kind = type(recording)

    @functools.wraps(kind.step)  # pipelines read its signature
    def step(self: Any, model_output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **options: Any) -> Any:
        answer = kind.step(self, model_output, timestep, sample, *rest, **options)
        steps.latents.append(sample.clone())
        steps.predictions.append(model_output.clone())
        steps.results.append((answer[0] if isinstance(answer, tuple) else answer.prev_sample).clone())
        return answer

    recording.__class__ = type(kind.__name__, (kind,), {"step": step, **disguise(kind)})
    with placed(pipe, recording):
        yield steps
