"""`renoise edit`, `invert` and `reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renoise.apps.cli import pipes
from renoise.apps.cli.options import (
    INVERSION,
    Dtype,
    MakeInvertible,
    Model,
    Passes,
    PictureOutput,
    Preset,
    SameModel,
    Scheduler,
    SchedulerConfig,
    Seed,
    Size,
    Steps,
    Strength,
    Tolerance,
    finite,
    inversion_file,
)
from renoise.apps.cli.output import say_written, summary, write

__all__ = ["edit", "invert", "reconstruct"]


def edit(
    picture: Annotated[
        Path, typer.Argument(help="A picture, or an inversion that [b]renoise invert[/b] saved.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", "-t", help="What it shall show instead.")],
    output: PictureOutput = Path("edited.png"),
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="What the picture shows (a saved inversion knows).")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=1, callback=finite, help="Guidance scale of the edit; 1 is none; by default the preset's."),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What it shall not show; counts with guidance.")] = None,
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
    """Edit a picture with words.

    [dim]renoise edit picture.png --prompt "red apple, blob style" --to "green apple, blob style" -o edited.png[/dim]
    """
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    if picture.suffix.lower() == INVERSION:
        ignored = {
            "--prompt": prompt,
            "--preset": preset,
            "--passes": passes,
            "--steps": steps,
            "--tol": tol,
            "--strength": strength,
            "--size": size,
            "--seed": seed,
        }
        given = [option for option, value in ignored.items() if value is not None]
        if given:
            raise typer.BadParameter(f"{picture} is inverted already; leave out {', '.join(given)}")
        inversion = pipes.saved(picture, chosen)
    else:
        inversion = pipes.inverted(
            picture,
            prompt,
            chosen,
            preset=preset,
            passes=passes,
            num_inference_steps=steps,
            tol=tol,
            strength=strength,
            size=size,
            seed=seed,
            edit={"prompt": to, "negative_prompt": negative, "guidance_scale": guidance},
        )
    write(inversion.edit(to, negative_prompt=negative, guidance_scale=guidance), output)
    summary(inversion)


def invert(
    picture: Annotated[Path, typer.Argument(help="A picture of any size and format.", show_default=False)],
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help='What the picture shows, e.g. "red apple, blob style".')
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=inversion_file, help="Where to save the inversion.")
    ] = Path("inversion.safetensors"),
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
