"""`renoise edit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renoise.apps.cli import pipes, several
from renoise.apps.cli.options import (
    INVERSION,
    Dtype,
    MakeInvertible,
    Model,
    Passes,
    Preset,
    Prompt,
    Scheduler,
    SchedulerConfig,
    Seed,
    Size,
    Steps,
    Strength,
    Tolerance,
    finite,
    picture_file,
)
from renoise.apps.cli.output import summary, write
from renoise.edit_controls import PRESERVE
from renoise.images import open_image

if TYPE_CHECKING:
    import renoise

__all__ = ["edit", "one_dial", "preserved"]

_HOLDING = "How much is kept"


def dial(values: list[str] | None) -> list[str] | None:
    """Refuses what is no point of the dial."""
    for value in values or []:
        if value not in PRESERVE and not _share(value):
            raise typer.BadParameter(f"{value!r} is no number from 0 to 1, and none of {', '.join(PRESERVE)}")
    return values


def one_dial(value: str | None) -> str | None:
    """The same for one of them."""
    dial([value] if value is not None else None)
    return value


def _share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def preserved(value: str) -> str | float:
    """A point of the dial as the API takes it."""
    return value if value in PRESERVE else float(value)


def edit(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            help="A picture, or an inversion that [b]renoise invert[/b] saved; or several pictures, or a folder.",
            show_default=False,
        ),
    ],
    to: Annotated[list[str], typer.Option("--to", "-t", help="What it shall show instead; several are several edits.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default="edited.png, or edited",
            help="Where to write the picture; of several pictures, a folder.",
        ),
    ] = None,
    prompt: Prompt = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=1, callback=finite, help="Guidance scale of the edit; 1 is none; by default the preset's."),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What it shall not show; counts with guidance.")] = None,
    preserve: Annotated[
        list[str] | None,
        typer.Option(
            callback=dial,
            metavar="DIAL",
            rich_help_panel=_HOLDING,
            help=f"How much of the picture stays: {', '.join(PRESERVE)}, or a number from 0 to 1; several are several "
            "edits.",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|auto",
            rich_help_panel=_HOLDING,
            help="Where it may change: a picture that is white there, or auto, for where the prompts disagree. "
            "The rest keeps its very pixels.",
        ),
    ] = None,
    mask_grow: Annotated[
        int, typer.Option(rich_help_panel=_HOLDING, help="Pixels by which the mask is enlarged, or reduced below 0.")
    ] = 0,
    mask_feather: Annotated[
        int | None,
        typer.Option(min=0, rich_help_panel=_HOLDING, help="Pixels over which it fades; by default 1 for 64."),
    ] = None,
    source_guidance: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, callback=finite, rich_help_panel=_HOLDING, help="How far to go away from what it shows."
        ),
    ] = None,
    randomness: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, rich_help_panel=_HOLDING, help="Share of fresh noise.")
    ] = 0.0,
    strength: Strength = None,
    grid: Annotated[bool, typer.Option("--grid", help="Write all edits as one picture, with titles.")] = False,
    model: Model = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
    preset: Preset = None,
    passes: Passes = None,
    steps: Steps = None,
    tol: Tolerance = None,
    size: Size = None,
    seed: Seed = None,
) -> None:
    """Edit a picture with words.

    [dim]renoise edit picture.png --prompt "red apple, blob style" --to "green apple, blob style" -o edited.png[/dim]
    """
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    shape = None if mask in (None, "auto") else open_image(str(mask))
    dials = [preserved(value) for value in preserve or []]
    how: dict[str, Any] = {"preset": preset, "passes": passes, "num_inference_steps": steps, "tol": tol, "size": size}
    controls: dict[str, Any] = {
        "negative_prompt": negative,
        "guidance_scale": guidance,
        "preserve": dials if len(dials) > 1 else dials[0] if dials else None,
        "source_guidance": source_guidance,
        "randomness": randomness,
        "seed": seed or 0,
        "mask": mask if shape is None else shape,
        "mask_grow": mask_grow,
        "mask_feather": mask_feather,
    }
    if several.are_several(pictures):
        if grid or len(dials) > 1:
            raise typer.BadParameter("--grid, and several of --preserve, are for one picture")
        how |= {"strength": strength, "seed": seed}
        several.work_on(pictures, output or Path("edited"), chosen, prompt, to, edit=controls, **how)
        return
    picture, place = pictures[0], picture_file(output or Path("edited.png"))
    if picture.suffix.lower() == INVERSION:
        ignored = {
            "--prompt": prompt,
            "--preset": preset,
            "--passes": passes,
            "--steps": steps,
            "--tol": tol,
            "--size": size,
            "--seed": None if randomness else seed,
        }
        given = [option for option, value in ignored.items() if value is not None]
        if given:
            raise typer.BadParameter(f"{picture} is inverted already; leave out {', '.join(given)}")
        inversion = pipes.saved(picture, chosen)
    else:
        if shape is not None:
            from renoise.masks import read

            read(shape, open_image(picture).size)  # or refused, before the picture is inverted
        inversion = pipes.inverted(
            picture,
            prompt,
            chosen,
            strength=strength,
            seed=seed,
            to=to,
            edit=controls,
            **how,
        )
        strength = None  # the inversion went no further
    edits = inversion.edit(to if len(to) > 1 else to[0], strength=strength, **controls)
    write(_drawn(edits, to, [str(value) for value in dials], inversion) if grid else _flat(edits), place)
    summary(inversion)


def _flat(edits: Any) -> Any:
    """Edits in one list, where they are several."""
    if not isinstance(edits, list):
        return edits
    return [picture for part in edits for picture in (part if isinstance(part, list) else [part])]


def _drawn(edits: Any, prompts: list[str], dials: list[str], inversion: renoise.Inversion) -> Any:
    """All edits of a picture as one figure, the picture itself first: a row for each prompt, a column for each dial."""
    from renoise import images
    from renoise.figures import grid

    rows = edits if len(prompts) > 1 else [edits]
    original = images.unfit(images.to_pil(inversion.pixels)[0], inversion.record.boxes[0])
    table = [[original, *(row if isinstance(row, list) else [row])] for row in rows]
    titles = ["original", *(dials or ["edited"])]
    return grid(table, prompts, [f"preserve {title}" if title in dials else title for title in titles])
