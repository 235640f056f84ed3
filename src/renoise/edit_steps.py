"""Which steps an edit may take: those of its inversion, or another number of the same sampler's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from renoise.pipelines.adapter import Adapter
from renoise.record import Record

__all__ = ["check_steps", "refuse_grid"]


_GRID = ("timesteps", "sigmas", "mu", "eta")


def refuse_grid(pipe_kwargs: Mapping[str, Any]) -> None:
    """Refuses, by ValueError, keywords of an edit's own call that would ask for other steps."""
    for keyword in _GRID:
        if keyword in pipe_kwargs:
            raise ValueError(
                f"{keyword} in pipe_kwargs of an edit: it uses the steps of the inversion; leave it out, or invert "
                f"again with pipe_kwargs={{{keyword!r}: ...}}"
            )


def check_steps(record: Record, adapter: Adapter, num_inference_steps: int | None) -> None:
    """Refuses an edit on steps that are neither the inversion's nor to be had by `renoise.core.regrid`.

    Args:
        record: the inversion.
        adapter: the pipeline that is to make the edit.
        num_inference_steps: another number of steps than the inversion's, or None.

    Raises:
        ValueError: such steps; says what to leave out or to put back.
    """
    if num_inference_steps is None:
        return
    now, then = type(adapter.pipe.scheduler).__name__, record.scheduler
    if now != then:
        raise ValueError(
            f"num_inference_steps={num_inference_steps} after an inversion with {then}, and the pipeline has {now} "
            "now: give it the scheduler of the inversion, or leave the number out"
        )
    live = adapter.known_schedule(record.driver, record.settings.num_inference_steps)
    column = None if live is None else record.trajectory.table.difference(live)
    if column:
        raise ValueError(
            f"num_inference_steps={num_inference_steps} after an inversion with a {then} whose steps differ from "
            f"this one's (in {column}): give the scheduler the configuration that it had then"
        )
    own = [keyword for keyword in _GRID if keyword in record.scene.pipe_kwargs]
    if own:
        raise ValueError(
            f"num_inference_steps={num_inference_steps} after an inversion with {', '.join(own)} of your own: "
            "leave it out, or invert again without"
        )
