"""The options that several commands share, and what is checked before any work."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from renoise.apps.cli.output import encoded
from renoise.files import check_place
from renoise.pipelines.names import check_name, check_scheduler_name
from renoise.shipped import NAMES as MODELS

INVERSION = ".safetensors"
"""How the name of a saved inversion ends."""

# Names that are checked before the modules that know them are imported, which takes seconds.  A test compares them.
DTYPES = ("float32", "bfloat16", "float16")
PRESETS = (
    "paper",
    "paper-sd",
    "paper-sdxl",
    "paper-sdxl-turbo",
    "paper-lcm",
    "reference-sdxl-turbo",
    "paper-flow",
    "paper-flow-few-step",
    "few-step",
    "fast",
    "fast-latent",
    "sharp",
    "many-step",
    "flow",
)


def picture_file(path: Path) -> Path:
    """Refuses a name under which no picture can be written."""
    writable(path)
    try:
        encoded(Image.new("RGB", (16, 16)), path)
    except (KeyError, OSError, ValueError) as error:
        raise typer.BadParameter(f"{path}: no picture can be written as {path.suffix!r}; use .png or .jpg") from error
    return path


def inversion_file(path: Path) -> Path:
    """Refuses a name under which no inversion can be written."""
    writable(path)
    if path.suffix.lower() != INVERSION:
        raise typer.BadParameter(f"{path}: an inversion is saved as {INVERSION}, e.g. {path.stem}{INVERSION}")
    return path


def writable(path: Path) -> None:
    """Refuses, before any work, what could not be written in the end."""
    try:
        check_place(path)
    except (OSError, ValueError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise typer.BadParameter(f"{path} cannot be written ({reason})") from error


def finite(value: float | None) -> float | None:
    """Refuses infinity and what is not a number."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def picture_size(value: str | None) -> str | None:
    """Refuses what is not one or two whole numbers."""
    if value is not None and not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})?", value):
        raise typer.BadParameter(f"{value!r} is no size: pass one number, or HEIGHTxWIDTH, e.g. 512x768")
    return value


def settings_of_scheduler(values: list[str] | None) -> list[str] | None:
    """Refuses what is not key=value."""
    for value in values or []:
        if not re.fullmatch(r"[A-Za-z_]\w*=.+", value, re.DOTALL):
            raise typer.BadParameter(f"{value!r} is not key=value, e.g. timestep_spacing=trailing")
    return values


def model_name(name: str | None) -> str | None:
    """Refuses what is neither an embedded model nor a folder or a hub name of a pipeline."""
    if name is not None and name not in MODELS:
        check_name(name, MODELS)
    return name


def scheduler_name(name: str | None) -> str | None:
    """Refuses what diffusers does not have."""
    if name is not None:
        check_scheduler_name(name)
    return name


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
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        help="What the picture shows (a saved inversion knows). Left out, the judge of the embedded models "
        "suggests it, and for other models nothing is said.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        callback=model_name,
        help="An embedded model ([b]renoise models[/b] lists them; emoji-turbo if none is given), or a folder or hub "
        "name of a diffusers pipeline. It runs on the GPU, where there is one.",
    ),
]
SameModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        callback=model_name,
        help="The pipeline that the inversion was made with, if that is no embedded model.",
    ),
]
Embedded = Annotated[str, typer.Option("--model", "-m", callback=one_of(*MODELS), help=f"One of {', '.join(MODELS)}.")]
Scheduler = Annotated[
    str | None,
    typer.Option(callback=scheduler_name, help="diffusers scheduler class to use in place of the model's own."),
]
SchedulerConfig = Annotated[
    list[str] | None,
    typer.Option(
        callback=settings_of_scheduler,
        metavar="KEY=VALUE",
        help="A setting of the scheduler, e.g. clip_sample=false; may be given several times.",
    ),
]
MakeInvertible = Annotated[
    bool,
    typer.Option("--make-invertible", help="Exchange a scheduler that cannot be inverted for its nearest relative."),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        callback=one_of(*DTYPES),
        help=f"Precision of the networks: {', '.join(DTYPES)}. By default float32; half precision for models from a "
        "folder or the hub on a GPU: float16 where they have files in it, otherwise bfloat16.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        callback=one_of(*PRESETS),
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
    typer.Option(
        min=0,
        max=1,
        help="Share of the steps to invert; below 1, more of the picture stays. By default 1.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all random draws; by default 0.")]
Size = Annotated[
    str | None,
    typer.Option(callback=picture_size, help="Pixels to work at, N or HEIGHTxWIDTH; by default the model's own."),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tol",
        min=0,
        max=1,
        help="Stop a step early once it misses at most this share, e.g. 0.01; by default never.",
    ),
]
