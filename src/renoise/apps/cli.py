"""The command line: parse, call the API, save, print."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from typer.core import TyperGroup
except ImportError as error:  # pragma: no cover - the message is the point
    sys.exit(f'the command line needs two more packages: pip install "renoise[cli]" ({error})')

import torch
from PIL import Image

import renoise
from renoise import archive, images, models, presets
from renoise.pipelines import families

_INVERSION = ".safetensors"

console = Console()


class Commands(TyperGroup):
    """Says in one line what went wrong: exit code 1 when something cannot work (2 is a command line misread)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):  # they are RuntimeErrors
            raise
        except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
            message = f"[red]error:[/red] {escape(str(error))}"
            Console(stderr=True).print(message, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _picture_file(path: Path) -> Path:
    _check_place(path)
    try:
        _encoded(Image.new("RGB", (16, 16)), path)
    except (KeyError, OSError, ValueError) as error:
        raise typer.BadParameter(f"{path}: no picture can be written as {path.suffix!r}; use .png or .jpg") from error
    return path


def _inversion_file(path: Path) -> Path:
    _check_place(path)
    if path.suffix.lower() != _INVERSION:
        raise typer.BadParameter(f"{path}: an inversion is saved as {_INVERSION}, e.g. {path.stem}{_INVERSION}")
    return path


def _check_place(path: Path) -> None:
    """Refuses, before any work, what could not be written in the end."""
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file in it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written, {folder} is no folder that you may write to")


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"renoise {renoise.__version__}", highlight=False)
        raise typer.Exit


def _one_of(*names: str) -> Any:
    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
        return value

    return check


PictureOutput = Annotated[
    Path, typer.Option("--output", "-o", callback=_picture_file, help="Where to write the picture.")
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
    str, typer.Option("--model", "-m", callback=_one_of(*models.NAMES), help=f"One of {', '.join(models.NAMES)}.")
]
Scheduler = Annotated[str | None, typer.Option(help="diffusers scheduler class to use in place of the model's own.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        callback=_one_of(*models.DTYPES),
        help=f"Precision of the networks: {', '.join(models.DTYPES)}; float32 if none is given.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        callback=_one_of("paper", *presets.PRESETS),
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


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Invert a picture into a text-to-image model and edit it with words.

    Exit codes: 0 done, 1 something cannot work, 2 the command line cannot be read, 130 interrupted.
    """


@app.command()
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
        float | None, typer.Option(min=1, help="Guidance scale of the edit; 1 is none; by default the preset's.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What it shall not show; counts with guidance.")] = None,
    model: Model = None,
    scheduler: Scheduler = None,
    dtype: Dtype = None,
    preset: Preset = None,
    passes: Passes = None,
    steps: Steps = None,
    strength: Strength = None,
    seed: Seed = None,
) -> None:
    """Edit a picture with words.

    [dim]renoise edit picture.png --prompt "red apple, blob style" --to "green apple, blob style" -o edited.png[/dim]
    """
    if picture.suffix.lower() == _INVERSION:
        ignored = {
            "--prompt": prompt,
            "--preset": preset,
            "--passes": passes,
            "--steps": steps,
            "--strength": strength,
            "--seed": seed,
        }
        given = [option for option, value in ignored.items() if value is not None]
        if given:
            raise typer.BadParameter(f"{picture} is inverted already; leave out {', '.join(given)}")
        inversion = _saved(picture, model, scheduler, dtype)
    else:
        inversion = _inverted(picture, prompt, model, scheduler, dtype, preset, passes, steps, strength, seed)
    _write(inversion.edit(to, negative_prompt=negative, guidance_scale=guidance), output)
    _summary(inversion)


@app.command()
def invert(
    picture: Annotated[Path, typer.Argument(help="A picture of any size and format.", show_default=False)],
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help='What the picture shows, e.g. "red apple, blob style".')
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=_inversion_file, help="Where to save the inversion.")
    ] = Path("inversion.safetensors"),
    model: Model = None,
    scheduler: Scheduler = None,
    dtype: Dtype = None,
    preset: Preset = None,
    passes: Passes = None,
    steps: Steps = None,
    strength: Strength = None,
    seed: Seed = None,
) -> None:
    """Find the noise from which the model regenerates a picture, and save it."""
    inversion = _inverted(picture, prompt, model, scheduler, dtype, preset, passes, steps, strength, seed)
    inversion.save(output)
    _say_written(output)
    _summary(inversion)


@app.command()
def reconstruct(
    inversion: Annotated[Path, typer.Argument(help="A file that [b]renoise invert[/b] saved.", show_default=False)],
    output: PictureOutput = Path("reconstruction.png"),
    model: SameModel = None,
    scheduler: Scheduler = None,
    dtype: Dtype = None,
) -> None:
    """Regenerate the picture of a saved inversion."""
    loaded = _saved(inversion, model, scheduler, dtype)
    _write(loaded.reconstruct(), output)
    _summary(loaded)


@app.command()
def demo(
    output: PictureOutput = Path("renoise-demo.png"),
    model: Embedded = "emoji-turbo",
    dtype: Dtype = None,
    seed: Seed = None,
) -> None:
    """Invert, reconstruct and edit a picture that the model never saw; no network needed."""
    from renoise.apps.demo import figure

    picture, lines = figure(_pipeline(model, None, dtype), seed=seed or 0)
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
    _write(picture, output)


# What makes a difference to the preset of a pipeline: words for it, and what stands for it in presets.preset_name.
_FLOW: dict[str, Any] = {"scheduler": "FlowMatchEulerDiscreteScheduler", "config": {}}
_UNET_SAMPLERS: dict[str, dict[str, Any]] = {
    "LCM, TCD": {"scheduler": "LCMScheduler", "config": {}},
    "Euler, trailing": {"scheduler": "EulerDiscreteScheduler", "config": {"timestep_spacing": "trailing"}},
    "any other": {"scheduler": "DDIMScheduler", "config": {}},
}
_FLOW_SAMPLERS: dict[str, dict[str, Any]] = {"any": _FLOW}
_DISTILLABLE_SAMPLERS: dict[str, dict[str, Any]] = {"any, few-step model": {**_FLOW, "few_step": True}, "any": _FLOW}


def _recognised() -> dict[tuple[str, str], list[str]]:
    """Samplers with the presets that they get, a line each, and the pipelines of which that holds."""
    groups: dict[tuple[str, str], list[str]] = {}
    for rules in families.FAMILIES.values():
        flow = _DISTILLABLE_SAMPLERS if rules.few_step else _FLOW_SAMPLERS
        samplers = flow if rules.patch else _UNET_SAMPLERS
        for pipeline in rules.pipelines:
            names = [presets.preset_name(pipeline, **sampler) for sampler in samplers.values()]
            groups.setdefault(("\n".join(samplers), "\n".join(names)), []).append(pipeline)
    return groups


@app.command("models")
def list_models() -> None:
    """List the embedded models, the pipelines that are recognised with the preset of each, and the presets."""
    table = _table("Embedded models", "model", "what it is")
    for name, about in models.ABOUT.items():
        table.add_row(name, about)
    console.print(table)
    table = _table(
        "Pipelines of diffusers, and the preset that each gets by its sampler", "pipeline", "sampler", "preset"
    )
    for (samplers, names), pipelines in _recognised().items():
        table.add_row("\n".join(pipelines), samplers, names)
    console.print(table)
    table = _table(
        "Presets: where the numbers come from, and what they should reach", "preset", "steps", "source; score"
    )
    for name, settings in presets.PRESETS.items():
        table.add_row(name, str(settings.num_inference_steps), f"{settings.source}\n[dim]{settings.score}[/dim]")
    console.print(table)
    console.print(
        "The paper is ReNoise (Garibi et al., ECCV 2024). Networks that do not predict noise go without its edit "
        "losses. SD3.5 Turbo and Z-Image Turbo do not say of themselves that they take few steps: pass --preset "
        "few-step. --preset paper takes what was published for a pipeline.",
        highlight=False,
    )


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", title_style="bold", show_lines=True)


def _quieten() -> None:
    """Keeps the loading bars of the libraries off the screen; diffusers still says where a prompt is too long."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _pipeline(model: str, scheduler: str | None, dtype: str | None) -> Any:
    _quieten()
    pipe = models.load(model, dtype=dtype or "float32", scheduler=scheduler)
    if torch.accelerator.is_available():
        pipe.to(torch.accelerator.current_accelerator())
    return _with_bars(pipe)


def _with_bars(pipe: Any) -> Any:
    """Progress bars that count passes, and make room for the results."""
    pipe.set_progress_bar_config(unit=" passes", leave=False)
    return pipe


def _inverted(
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
    if not prompt or not prompt.strip():
        raise typer.BadParameter('say what the picture shows, e.g. --prompt "red apple, blob style"')
    source = images.open_image(picture)  # before any model is loaded
    return renoise.invert(
        _pipeline(model or "emoji-turbo", scheduler, dtype),
        source,
        prompt,
        preset=preset,
        passes=passes,
        num_inference_steps=steps,
        strength=1.0 if strength is None else strength,
        seed=seed or 0,
    )


def _saved(path: Path, model: str | None, scheduler: str | None, dtype: str | None) -> renoise.Inversion:
    if model is None and (scheduler or dtype):
        raise typer.BadParameter("--scheduler and --dtype belong to a --model; name the one to regenerate with")
    if model is not None:
        return renoise.load(path, _pipeline(model, scheduler, dtype))
    _quieten()
    inversion = renoise.load(path)
    _with_bars(inversion.pipe)
    return inversion


def _write(pictures: Any, output: Path) -> None:
    """Writes one picture, or the pictures of a batch with numbers in their names."""
    if not isinstance(pictures, list):
        archive.write(output, _encoded(pictures, output))
        _say_written(output)
        return
    for number, picture in enumerate(pictures, 1):
        _write(picture, output.with_stem(f"{output.stem}-{number}"))


def _encoded(picture: Image.Image, path: Path) -> bytes:
    """The bytes of a picture file of the kind that its name says."""
    kind = Image.registered_extensions()[path.suffix.lower()]
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def _say_written(path: Path) -> None:
    console.print(f"[green]wrote[/green] {escape(str(path))}", highlight=False, soft_wrap=True)


def _summary(inversion: renoise.Inversion) -> None:
    for found, ceiling in zip(inversion.fidelity().tolist(), inversion.ceiling().tolist(), strict=True):
        console.print(
            f"reconstruction {found:.1f} dB, auto-encoder ceiling {ceiling:.1f} dB, "
            f"{inversion.passes} passes, {inversion.seconds:.1f} s",
            soft_wrap=True,
        )


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
