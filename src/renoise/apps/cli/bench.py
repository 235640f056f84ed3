"""`renoise bench`: measure inversions and edits on data sets."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from renoise.apps.cli import pipes
from renoise.apps.cli.options import Dtype, MakeInvertible, Model, Scheduler, SchedulerConfig, Size, finite, one_of
from renoise.apps.cli.output import console, say_written
from renoise.presets import PRESETS

__all__ = ["bench"]

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure inversions and edits on data sets. Needs the packages of the extra [b]bench[/b].",
)

# The packages of the extra `bench` that the commands import, and their names on PyPI.
_PACKAGES = {"torchmetrics": "torchmetrics", "matplotlib": "matplotlib", "skimage": "scikit-image"}


def _names(values: list[str] | None) -> list[str] | None:
    check = one_of("paper", *PRESETS)
    for value in values or []:
        check(value)
    return values


def _folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; name a folder for the results")
    return path


Data = Annotated[
    Path, typer.Option("--data", "-d", exists=True, file_okay=False, help="Folder of the data set.", show_default=False)
]
Results = Annotated[
    Path,
    typer.Option("--output", "-o", callback=_folder, help="Folder for the results. Given again, the work goes on."),
]
Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        callback=_names,
        help="Settings to compare, by name ([b]renoise models[/b] lists them); may be given several times. By default "
        "what suits model and scheduler.",
    ),
]
Count = Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")]
Batch = Annotated[int, typer.Option(min=1, help="How many pictures to invert at once.")]
FirstSeed = Annotated[int, typer.Option("--seed", min=0, help="Added to the seed of each picture, which is its own.")]


@bench.command()
def pie(
    data: Data,
    output: Results = Path("bench-pie"),
    types: Annotated[
        str | None, typer.Option("--types", help="Only these kinds of edits, e.g. 1,9 for objects and styles.")
    ] = None,
    count: Count = None,
    model: Model = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
    preset: Presets = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, callback=finite, help="Guidance scale of the edits; by default the preset's.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What no edit shall show; counts with guidance.")] = None,
    size: Size = None,
    batch: Batch = 1,
    seed: FirstSeed = 0,
    clip: Annotated[
        str | None, typer.Option(help="CLIP for similarities: folder or hub name; none leaves them out.")
    ] = None,
    dino: Annotated[
        str | None, typer.Option(help="DINO ViT for structure distances: folder or hub name; none leaves them out.")
    ] = None,
    squeezenet: Annotated[
        str | None, typer.Option(help="torchvision's file of SqueezeNet 1.1 for LPIPS; none leaves it out.")
    ] = None,
) -> None:
    """Edit the pictures of PIE-Bench and compute its metrics.

    Reads the benchmark as it is published (mapping_file.json, annotation_images) and the parquet files of PIE_Bench_pp.
    Writes all pictures, a CSV with a row for each, tables by type of edit with 95 % intervals, and contact sheets of
    the best, median and worst edits. Metrics whose network cannot be loaded are named and left out.

    [dim]renoise bench pie --data PIE-Bench --model stabilityai/sdxl-turbo --preset few-step --preset paper[/dim]
    """
    _check_packages()
    from renoise import files, models
    from renoise.evaluation import editing, networks, pie, summary

    cases = pie.read(data, _types(types))[:count]
    sources = {"clip": clip, "dino": dino, "squeezenet": squeezenet}
    _check_folders(sources)
    loaded = networks.load(**{name: source for name, source in sources.items() if source is not None})
    for sentence in loaded.missing:
        _say(f"[yellow]note:[/yellow] {escape(sentence)}")
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    pipe = _quiet(pipes.pipeline(chosen))
    controls = {"guidance_scale": guidance, "negative_prompt": negative}
    controls = {name: value for name, value in controls.items() if value is not None}
    work = editing.Work(output, _sides(size), batch, seed, controls)
    methods = _methods(pipe, preset)
    with _progress("inverting and editing", len(cases) * len(methods)) as told:
        editing.make(pipe, cases, methods, work, told)
    judge = models.judge() if models.name_of(pipe) else None
    names = [method.name for method in methods]
    with _progress("scoring", len(cases) * len(methods)) as told:
        rows = editing.score(cases, names, work, loaded.to(pipe._execution_device), judge, told)
    command = f"renoise bench pie --data {data}"
    files.write(output / "pie.md", f"<!-- {command} -->\n{summary.page(rows, loaded.missing)}".encode())
    written = [output / "pie.csv", output / "pie.md"]
    for name in names:
        mine = [row for row in rows if row["method"] == name]
        if any(not row["error"] for row in mine):
            sheet = output / f"contact-{name}.png"
            summary.contact_sheet(mine, cases, work).save(sheet)
            written.append(sheet)
    for sentence in summary.left_out(rows):
        _say(escape(sentence))
    for path in written:
        say_written(path)


@bench.command()
def folder(
    data: Data,
    output: Results = Path("bench-folder"),
    count: Count = None,
    model: Model = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
    preset: Presets = None,
    passes: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Network passes to compare at, multiples of the number of steps; may be given several times. By "
            "default 1, 2, 3, 5 and 10 per step for few-step models, and 1 and 2 for others.",
        ),
    ] = None,
    size: Size = None,
    batch: Batch = 1,
) -> None:
    """Reconstruct pictures with captions at every budget of network passes.

    Compares presets with plain reversal and with ReNoise as published, at equal passes: figure 8 and table 2 of the
    paper, on your pictures. Reads metadata.jsonl or metadata.csv (file_name, text) beside the pictures, and COCO's
    captions. Writes a CSV with a row for each picture and method, tables, and a plot.

    [dim]renoise bench folder --data photos --model stabilityai/sdxl-turbo --passes 4 --passes 8 --passes 16[/dim]
    """
    _check_packages()
    from renoise.evaluation import budgets, captions
    from renoise.evaluation.methods import compared, default_budgets
    from renoise.evaluation.records import Records
    from renoise.pipelines.adapter import Adapter
    from renoise.presets import chosen_settings

    pictures = captions.read(data, count)
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    pipe = _quiet(pipes.pipeline(chosen))
    paper = chosen_settings(Adapter(pipe), "paper")
    named = {method.name: method.settings for method in _methods(pipe, preset)}
    wanted = sorted(set(passes)) if passes else default_budgets(paper.num_inference_steps)
    methods = list(compared(paper, named, wanted))
    records = Records(output / "folder.csv", budgets.KEYS)
    with _progress("inverting", len(pictures) * len(methods)) as told:
        rows = budgets.measure(pipe, pictures, methods, records, size=_sides(size), batch=batch, told=told)
    _say(escape(budgets.show(rows, output, f"renoise bench folder --data {data}")))
    for name in ("folder.csv", "folder.md", "folder.png"):
        say_written(output / name)


def _check_packages() -> None:
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'renoise bench needs {" and ".join(missing)}: pip install "renoise[bench]"')


def _check_folders(sources: dict[str, str | None]) -> None:
    """Refuses paths of networks that do not exist; a name on the hub has one slash and does not begin with a dot."""
    for option, source in sources.items():
        looks_like_path = source is not None and (source.startswith((".", "/", "~")) or source.endswith(".pth"))
        if looks_like_path and "://" not in str(source) and not Path(str(source)).expanduser().exists():
            raise typer.BadParameter(f"--{option} {source}: no such file or folder")


def _types(text: str | None) -> list[str] | None:
    from renoise.evaluation.pie import TYPES

    if text is None:
        return None
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in chosen if part not in TYPES]
    if unknown or not chosen:
        kinds = ", ".join(f"{number} {name}" for number, name in TYPES.items())
        raise typer.BadParameter(f"--types {text}: pass numbers such as 1,9, of {kinds}")
    return chosen


def _sides(size: str | None) -> tuple[int, int] | None:
    sides = [int(side) for side in size.split("x")] if size else []
    return (sides[0], sides[-1]) if sides else None


def _methods(pipe: Any, names: list[str] | None) -> list[Any]:
    """The presets that were named, or the pipeline's own, as methods."""
    from renoise.evaluation.methods import Method
    from renoise.pipelines.adapter import Adapter
    from renoise.presets import chosen_settings, name_of

    adapter = Adapter(pipe)
    if not names:
        settings = chosen_settings(adapter)
        own = name_of(settings) or "default"
        return [Method(own, own, settings)]
    return [Method(name, name, chosen_settings(adapter, name)) for name in dict.fromkeys(names)]


def _quiet(pipe: Any) -> Any:
    """A pipeline without bars of its own: the bar counts pictures."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], object]]:
    """A bar of pictures with the time left; told how many more are done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)
