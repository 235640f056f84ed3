"""Schedulers whose steps are known beforehand: a replay uses those of its inversion, whatever scheduler there is now.

Pipelines set their scheduler up in the beginning of a call.  A scheduler that took the place of the one that was
inverted with would set other steps up, or fail at what the pipeline asks of it, so it is not asked.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from renoise.core.table import StepTable
from renoise.pipelines.turns import BUSY

__all__ = ["Known", "check_scheduler", "disguise", "known_steps", "refuse_other_steps"]


class Known:
    """What a scheduler does differently where its steps are known beforehand."""

    _steps_known: StepTable | None = None

    def set_timesteps(
        self,
        num_inference_steps: Any = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: Any = None,
        **_: Any,
    ) -> None:
        """Sets the known steps up, whatever it is asked for."""
        assert self._steps_known is not None
        self.timesteps = self._steps_known.network_timesteps().to(device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Nothing: it is known which step it is."""

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """Nothing: what a pipeline makes of it is discarded."""
        return original_samples

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Nothing: no step is taken."""
        return sample


def known_steps(scheduler: Any, table: StepTable) -> Any:
    """A copy of a scheduler that sets up the steps of a table, whatever it is asked for; for a rehearsal."""
    known = copy.deepcopy(scheduler)
    known.__class__ = type(type(scheduler).__name__, (Known, type(scheduler)), disguise(type(scheduler)))
    known._steps_known = table
    return known


def disguise(kind: type) -> dict[str, Any]:
    """The same name and module, so that the pipeline's configuration stays as it is."""
    return {"__module__": kind.__module__, "__qualname__": kind.__qualname__}


def check_scheduler(scheduler: Any) -> None:
    """Refuses, by RuntimeError, the scheduler of a pipeline whose own has a stand-in at the moment."""
    if isinstance(scheduler, Known):
        raise RuntimeError(BUSY)


def refuse_other_steps(steps: int, pipe_kwargs: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuses, by ValueError, steps that a call asks for while an inversion is replayed that did not walk them.

    Args:
        steps: those of the inversion's whole schedule.
        pipe_kwargs: further keywords of the inversion, perhaps with a schedule of the user's own.
        asked: arguments of `set_timesteps`, by name.
    """
    # flow-matching pipelines ask for these sigmas where nobody gives them any
    usual = {"num_inference_steps": steps, "sigmas": torch.linspace(1, 1 / steps, steps), "timesteps": None}
    for name, otherwise in usual.items():
        wanted, own = asked.get(name), pipe_kwargs.get(name, otherwise)
        if wanted is not None and not _alike(wanted, own):
            raise ValueError(
                f"{name}={wanted} while an inversion of {steps} steps is replayed: call the pipeline with the keywords "
                "that replaying() yields, and without another schedule; or use inv.edit"
            )


def _alike(a: Any, b: Any) -> bool:
    """Whether two schedules, or two numbers of steps, are the same."""
    if b is None:
        return False
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6)
