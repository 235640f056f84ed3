"""The options that several commands share, and what is checked before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from renoise import models, presets
from renoise.apps.cli.output import encoded
from renoise.pipelines.loading import DTYPES

INVERSION = ".safetensors"
"""How the name of a saved inversion ends."""


def picture_file(path: Path) -> Path:
    """Refuses a name under which no picture can be written."""
    _check_place(path)
    try:
        encoded(Image.new("RGB", (16, 16)), path)
    except (KeyError, OSError, ValueError) as error:
        raise typer.BadParameter(f"{path}: no picture can be written as {path.suffix!r}; use .png or .jpg") from error
    return path


def inversion_file(path: Path) -> Path:
    """Refuses a name under which no inversion can be written."""
    _check_place(path)
    if path.suffix.lower() != INVERSION:
        raise typer.BadParameter(f"{path}: an inversion is saved as {INVERSION}, e.g. {path.stem}{INVERSION}")
    return path


def _check_place(path: Path) -> None:
    """Refuses, before any work, what could not be written in the end."""
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written, {folder} is no folder that you may write to")


def one_of(*names: str) -> Any:
    """A check that a value is one of these names."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
        return value

    return check


PictureOutput = Annotated[
    Path, typer.Option("--output", "-o", callback=picture_file, help="Where to write the picture.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="An embedded model ([b]renoise models[/b] lists them; emoji-turbo if none is given), or a folder or hub "
        "name of a diffusers pipeline. It runs on the GPU, where there is one.",
    ),
]
SameModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="The pipeline that the inversion was made with, if that is no embedded model."),
]
Embedded = Annotated[
    str, typer.Option("--model", "-m", callback=one_of(*models.NAMES), help=f"One of {', '.join(models.NAMES)}.")
]
Scheduler = Annotated[str | None, typer.Option(help="diffusers scheduler class to use in place of the model's own.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        callback=one_of(*DTYPES),
        help=f"Precision of the networks: {', '.join(DTYPES)}; float32 if none is given.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        callback=one_of("paper", *presets.PRESETS),
        help="Settings by name ([b]renoise models[/b] lists them); by default what suits model and scheduler.",
    ),
]
Passes = Annotated[
    int | None,
    typer.Option(min=1, help="Network passes of the inversion in all, one per step or more; by default the preset's."),
]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Sampler steps; by default the preset's.")]
Strength = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of the steps to invert; below 1, more of the picture stays. By default 1."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all random draws; by default 0.")]
