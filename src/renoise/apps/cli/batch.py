"""`renoise batch`: many pictures, here or on many machines."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from renoise.apps.cli import pipes
from renoise.apps.cli.editing import one_dial, preserved
from renoise.apps.cli.options import (
    Dtype,
    MakeInvertible,
    Model,
    Passes,
    Preset,
    Scheduler,
    SchedulerConfig,
    Seed,
    Size,
    Steps,
    Strength,
    Tolerance,
    finite,
    one_of,
)
from renoise.apps.cli.output import console
from renoise.edit_controls import PRESERVE

if TYPE_CHECKING:  # torch takes seconds to import, and a mistyped command line is answered before
    from renoise.batch.folder import Batch, Work
    from renoise.batch.summary import Meter

__all__ = ["batch"]

_LINE_EVERY = 30.0  # seconds, where there is no terminal
_WORKERS = "Workers"


def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of pictures (captions in metadata.jsonl or .csv), a table of them as .csv, .jsonl or "
            ".parquet, or WebDataset .tar files.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="What pictures show of which the source does not say it."),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", "-t", help="Edit each picture to show this; may be given several times."),
    ] = None,
    reconstruct: Annotated[bool, typer.Option("--reconstruct", help="Keep the reconstructions.")] = False,
    measure: Annotated[
        bool, typer.Option(help="Compare reconstructions with the pictures, for one pass a step more.")
    ] = True,
    guidance: Annotated[
        float | None,
        typer.Option(min=1, callback=finite, help="Guidance scale of the edits; 1 is none; by default the preset's."),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What edits shall not show; counts with guidance.")] = None,
    preserve: Annotated[
        str | None,
        typer.Option(
            callback=one_dial,
            metavar="DIAL",
            help=f"How much of each picture edits keep: {', '.join(PRESERVE)}, or a number from 0 to 1.",
        ),
    ] = None,
    source_guidance: Annotated[
        float | None,
        typer.Option(min=0, max=100, callback=finite, help="How far edits go away from what the picture shows."),
    ] = None,
    shards: Annotated[
        str, typer.Option(callback=one_of("parquet", "webdataset"), help="Kind of the files: parquet or webdataset.")
    ] = "parquet",
    latents: Annotated[
        str,
        typer.Option(callback=one_of("float32", "float16"), help="Precision to keep latents in: float32 or float16."),
    ] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures that the model works on at once.")] = 16,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Pictures of a file, as many as a worker loses at most when it is killed.")
    ] = 128,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="Work with actors of Ray Data: on the cluster at this address ([b]auto[/b]: the one that this machine "
            "belongs to), or [b]local[/b], on this machine.",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    actors: Annotated[int, typer.Option(min=1, help="Actors, each with a model.", rich_help_panel=_WORKERS)] = 1,
    cpus: Annotated[float, typer.Option(min=0, help="Processors of an actor.", rich_help_panel=_WORKERS)] = 1,
    gpus: Annotated[
        float, typer.Option(min=0, help="GPUs of an actor; .5 puts two on one.", rich_help_panel=_WORKERS)
    ] = 0,
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
    """Invert many pictures, and reconstruct and edit them, into files that can be resumed at any time.

    [dim]renoise batch pictures --out results --prompt "a photo" --to "a watercolour"[/dim]

    If it is stopped, or the machine fails, the same command goes on where it was. Every picture is in the results once,
    and a picture that fails does not stop the others.
    """
    from renoise.batch import folder as folders
    from renoise.batch.recipe import Recipe
    from renoise.batch.sources import Defaults
    from renoise.batch.summary import Meter

    chosen = pipes.Chosen(_place(model), scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    given = {"preset": preset, "passes": passes, "num_inference_steps": steps, "tol": tol, "strength": strength}
    edit = {
        "guidance_scale": guidance,
        "negative_prompt": negative,
        "preserve": None if preserve is None else preserved(preserve),
        "source_guidance": source_guidance,
    }
    asked = folders.make(
        out,
        source,
        Defaults(prompt, tuple(to or ()), seed or 0),
        Recipe(
            pipes.keywords(size, **given),
            pipes.keywords(None, **edit),
            reconstruct=reconstruct,
            measure=measure,
            latents="float16" if latents == "float16" else "float32",
            batch_size=batch_size,
        ),
        kind="webdataset" if shards == "webdataset" else "parquet",
        shard_size=shard_size,
        pipeline=asdict(chosen),
    )
    start = partial(_started, chosen)
    with _Shown(Meter(asked.pictures, asked.done())) as shown:
        if ray is None:
            if asked.missing():
                work = start(asked)
                folders.fill_all(
                    asked, work, lambda rows: shown.add(len(rows), sum(row.error is not None for row in rows))
                )
        else:
            from renoise.apps import machines

            machines.fill_all(asked, start, machines.Machines(ray, actors, cpus, gpus), shown.add)
    for line in asked.finish().lines():
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(f"[green]wrote[/green] {escape(str(out))}", highlight=False, soft_wrap=True)


def _started(chosen: pipes.Chosen, asked: Batch) -> Work:
    """The work of a pipeline of its own; Ray calls this on another machine."""
    from renoise.batch.worker import ready

    return ready(asked, pipes.pipeline(chosen))


def _place(model: str | None) -> str | None:
    """A folder by its absolute path, which holds on other machines too, and wherever one goes on from."""
    return str(Path(model).absolute()) if model is not None and Path(model).is_dir() else model


class _Shown:
    """Shows progress: in one line on a terminal, otherwise as a new line every half minute."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._told = meter, time.monotonic()
        self._status = console.status(meter.line()) if console.is_terminal else None

    def __enter__(self) -> _Shown:
        if self._status is None:
            console.print(self._meter.line(), highlight=False, soft_wrap=True)
        else:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def add(self, pictures: int, failed: int) -> None:
        """Counts pictures as done."""
        self._meter.add(pictures, failed)
        if self._status is not None:
            self._status.update(self._meter.line())
        elif time.monotonic() - self._told >= _LINE_EVERY:
            self._told = time.monotonic()
            console.print(self._meter.line(), highlight=False, soft_wrap=True)
