"""The pipeline and the inversion that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import typer

import renoise
from renoise import images, models
from renoise.pipelines.loading import quieten

__all__ = ["inverted", "pipeline", "saved"]


def pipeline(model: str, scheduler: str | None, dtype: str | None) -> Any:
    """A pipeline by name, on the accelerator where there is one, whose progress bars count passes."""
    quieten()
    pipe = models.load(model, dtype=dtype or "float32", scheduler=scheduler)
    if torch.accelerator.is_available():
        pipe.to(torch.accelerator.current_accelerator())
    return _with_bars(pipe)


def _with_bars(pipe: Any) -> Any:
    """Progress bars that count passes, and make room for the results."""
    pipe.set_progress_bar_config(unit=" passes", leave=False)
    return pipe


def inverted(
    picture: Path,
    prompt: str | None,
    model: str | None,
    scheduler: str | None,
    dtype: str | None,
    preset: str | None,
    passes: int | None,
    steps: int | None,
    strength: float | None,
    seed: int | None,
) -> renoise.Inversion:
    """The inversion of a picture file; the picture is read before any model is loaded."""
    if not prompt or not prompt.strip():
        raise typer.BadParameter('say what the picture shows, e.g. --prompt "red apple, blob style"')
    source = images.open_image(picture)
    return renoise.invert(
        pipeline(model or "emoji-turbo", scheduler, dtype),
        source,
        prompt,
        preset=preset,
        passes=passes,
        num_inference_steps=steps,
        strength=1.0 if strength is None else strength,
        seed=seed or 0,
    )


def saved(path: Path, model: str | None, scheduler: str | None, dtype: str | None) -> renoise.Inversion:
    """The inversion in a file, with the pipeline named, or the embedded model that it was made with."""
    if model is None and (scheduler or dtype):
        raise typer.BadParameter("--scheduler and --dtype belong to a --model; name the one to regenerate with")
    if model is not None:
        return renoise.load(path, pipeline(model, scheduler, dtype))
    quieten()
    inversion = renoise.load(path)
    _with_bars(inversion.pipe)
    return inversion
