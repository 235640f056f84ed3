"""`renoise bench`: measure inversions and edits on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from renoise.apps.cli import pipes
from renoise.apps.cli.bench_options import (
    PLAIN,
    Batch,
    Budgets,
    Count,
    Data,
    EditArguments,
    FirstSeed,
    Presets,
    Results,
    check_networks,
    check_packages,
    chosen_types,
    command_line,
    progress,
    say,
)
from renoise.apps.cli.options import Dtype, MakeInvertible, Model, Scheduler, SchedulerConfig, Size, finite
from renoise.apps.cli.output import say_written

__all__ = ["bench"]

bench = typer.Typer(
    no_args_is_help=True,
    help="Measure inversions and edits on data sets. Needs the packages of the extra [b]bench[/b].",
)


@bench.command()
def pie(
    context: typer.Context,
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
    edit: EditArguments = None,
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
    check_packages()
    from renoise import files, models
    from renoise.evaluation import networks, pie, pie_edits, pie_summary

    cases = pie.read(data, chosen_types(types))[:count]
    sources = {"clip": clip, "dino": dino, "squeezenet": squeezenet}
    check_networks(sources)
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    pipe = _quiet(pipes.pipeline(chosen))
    methods = _methods(pipe, preset)
    controls = {"guidance_scale": guidance, "negative_prompt": negative}
    controls |= {value.partition("=")[0]: pipes.parsed(value.partition("=")[2]) for value in edit or []}
    controls = {name: value for name, value in controls.items() if value is not None}
    loaded = networks.load(**{name: source for name, source in sources.items() if source is not None})
    for sentence in loaded.missing:
        say(f"[yellow]note:[/yellow] {escape(sentence)}")
    work = pie_edits.Work(output, pipes.sides(size), batch, seed, controls)
    with progress("inverting and editing", len(cases) * len(methods)) as told:
        pie_edits.make(pipe, cases, methods, work, told)
    judge = models.judge() if models.name_of(pipe) else None
    names = [method.name for method in methods]
    with progress("scoring", len(cases) * len(methods)) as told:
        rows = pie_edits.score(cases, names, work, loaded.to(pipe._execution_device), judge, told)
    page = f"<!-- {command_line(context)} -->\n{pie_summary.page(rows, loaded.missing)}"
    files.write(output / "pie.md", page.encode())
    written = [output / "pie.csv", output / "pie.md"]
    for name in names:
        mine = [row for row in rows if row["method"] == name]
        if any(not row["error"] for row in mine):
            sheet = output / f"contact-{name}.png"
            pie_summary.contact_sheet(mine, cases, work).save(sheet)
            written.append(sheet)
    for sentence in pie_summary.left_out(rows):
        say(escape(sentence))
    for path in written:
        say_written(path)


@bench.command()
def folder(
    context: typer.Context,
    data: Data,
    output: Results = Path("bench-folder"),
    count: Count = None,
    model: Model = None,
    scheduler: Scheduler = None,
    scheduler_config: SchedulerConfig = None,
    make_invertible: MakeInvertible = False,
    dtype: Dtype = None,
    preset: Presets = None,
    passes: Budgets = None,
    size: Size = None,
    batch: Batch = 1,
) -> None:
    """Reconstruct pictures with captions at every budget of network passes.

    Compares presets with plain reversal and with ReNoise as published, at equal passes: figure 8 and table 2 of the
    paper, on your pictures. Reads metadata.jsonl or metadata.csv (file_name, text) beside the pictures, and COCO's
    captions. Writes a CSV with a row for each picture and method, tables, and a plot.

    [dim]renoise bench folder --data photos --model stabilityai/sdxl-turbo --passes 4 --passes 8 --passes 16[/dim]
    """
    check_packages()
    from renoise.evaluation import budgets, captions
    from renoise.evaluation.methods import compared, default_budgets
    from renoise.evaluation.records import Records
    from renoise.pipelines.adapter import Adapter
    from renoise.presets import chosen_settings

    pictures = captions.read(data, count)
    chosen = pipes.Chosen(model, scheduler, dtype, tuple(scheduler_config or ()), make_invertible)
    pipe = _quiet(pipes.pipeline(chosen))
    paper = chosen_settings(Adapter(pipe), "paper")
    named = {method.name: method.settings for method in _methods(pipe, preset) if method.name != PLAIN}
    wanted = sorted(set(passes)) if passes else default_budgets(paper.num_inference_steps)
    methods = list(compared(paper, named, wanted))
    records = Records(output / "folder.csv", budgets.KEYS)
    with progress("inverting", len(pictures) * len(methods)) as told:
        rows = budgets.measure(pipe, pictures, methods, records, size=pipes.sides(size), batch=batch, told=told)
    say(escape(budgets.show(rows, output, command_line(context))))
    for name in ("folder.csv", "folder.md", "folder.png"):
        say_written(output / name)


def _methods(pipe: Any, names: list[str] | None) -> list[Any]:
    """The presets that were named, or the pipeline's own, as methods."""
    from renoise.core.settings import plain
    from renoise.evaluation.methods import Method
    from renoise.pipelines.adapter import Adapter
    from renoise.presets import chosen_settings, name_of

    adapter = Adapter(pipe)
    own = chosen_settings(adapter)
    if not names:
        names = [name_of(own) or "default"]
        return [Method(names[0], names[0], own)]
    found = {name: plain(own) if name == PLAIN else chosen_settings(adapter, name) for name in names}
    return [Method(name, name, settings) for name, settings in found.items()]


def _quiet(pipe: Any) -> Any:
    """A pipeline without bars of its own: the bar counts pictures."""
    pipe.set_progress_bar_config(disable=True)
    return pipe
