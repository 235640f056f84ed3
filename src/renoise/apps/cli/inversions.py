"""`renoise invert` and `reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from renoise.apps.cli import pipes, several
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
    pictures: Annotated[
        list[Path],
        typer.Argument(help="A picture of any size and format; or several, or a folder of them.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default="inversion.safetensors, or inversions",
            help="Where to save the inversion; of several pictures, a folder.",
        ),
    ] = None,
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
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    how: dict[str, Any] = {"preset": preset, "passes": passes, "num_inference_steps": steps, "tol": tol}
    how |= {"strength": strength, "size": size, "seed": seed}
    if several.are_several(pictures):
        several.work_on(pictures, output or Path("inversions"), chosen, prompt, **how)
        return
    place = inversion_file(output or Path("inversion.safetensors"))
    inversion = pipes.inverted(pictures[0], prompt, chosen, **how)
    inversion.save(place)
    say_written(place)
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
