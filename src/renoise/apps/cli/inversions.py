"""`renoise invert` and `reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renoise.apps.cli import pipes
from renoise.apps.cli.options import (
    Dtype,
    MakeInvertible,
    Model,
    Passes,
    PictureOutput,
    Preset,
    Prompt,
    SameModel,
    Scheduler,
    SchedulerConfig,
    Seed,
    Size,
    Steps,
    Strength,
    Tolerance,
    inversion_file,
)
from renoise.apps.cli.output import say_written, summary, write

__all__ = ["invert", "reconstruct"]


def invert(
    picture: Annotated[Path, typer.Argument(help="A picture of any size and format.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=inversion_file, help="Where to save the inversion.")
    ] = Path("inversion.safetensors"),
    prompt: Prompt = None,
    model: Model = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
    preset: Preset = None,
    passes: Passes = None,
    steps: Steps = None,
    tol: Tolerance = None,
    strength: Strength = None,
    size: Size = None,
    seed: Seed = None,
) -> None:
    """Find the noise from which the model regenerates a picture, and save it."""
    inversion = pipes.inverted(
        picture,
        prompt,
        pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible),
        preset=preset,
        passes=passes,
        num_inference_steps=steps,
        tol=tol,
        strength=strength,
        size=size,
        seed=seed,
    )
    inversion.save(output)
    say_written(output)
    summary(inversion)


def reconstruct(
    inversion: Annotated[Path, typer.Argument(help="A file that [b]renoise invert[/b] saved.", show_default=False)],
    output: PictureOutput = Path("reconstruction.png"),
    model: SameModel = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
) -> None:
    """Regenerate the picture of a saved inversion."""
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    loaded = pipes.saved(inversion, chosen)
    write(loaded.reconstruct(), output)
    summary(loaded)
