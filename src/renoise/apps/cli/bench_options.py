"""The options of `renoise bench`, what is checked before any work, and what it shows meanwhile."""

from __future__ import annotations

import importlib.util
import inspect
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import renoise
from renoise.apps.cli import pipes
from renoise.apps.cli.options import PRESETS, one_of
from renoise.apps.cli.output import console

PLAIN = "plain"
"""The name of the baseline, which is no preset."""
# The packages of the extra `bench` that the commands import, and their names on PyPI.
_PACKAGES = {"torchmetrics": "torchmetrics", "matplotlib": "matplotlib", "skimage": "scikit-image"}


def _names(values: list[str] | None) -> list[str] | None:
    check = one_of(PLAIN, *PRESETS)
    for value in values or []:
        check(value)
    return values


def _edit_arguments(values: list[str] | None) -> list[str] | None:
    """Refuses what is not key=value with an argument of `Inversion.edit`, of one value for all pictures."""
    known = inspect.signature(renoise.Inversion.edit).parameters.keys() - {"self", "prompt", "pipe_kwargs", "progress"}
    for value in values or []:
        key, _, text = value.partition("=")
        if key not in known or not text:
            raise typer.BadParameter(f"{value!r} is not KEY=VALUE with one of {', '.join(sorted(known))}")
        if isinstance(pipes.parsed(text), (list, dict)):
            raise typer.BadParameter(f"{value!r}: pass one value, which all pictures are edited with")
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
        help="Settings to compare, by name ([b]renoise models[/b] lists them), or plain for plain reversal; may be "
        "given several times. By default what suits model and scheduler.",
    ),
]
Count = Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")]
Batch = Annotated[int, typer.Option(min=1, help="How many pictures to invert at once.")]
FirstSeed = Annotated[int, typer.Option("--seed", min=0, help="Added to the seed of each picture, which is its own.")]
EditArguments = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        callback=_edit_arguments,
        metavar="KEY=VALUE",
        help="A further argument of Inversion.edit, e.g. num_inference_steps=8; may be given several times.",
    ),
]
Budgets = Annotated[
    list[int] | None,
    typer.Option(
        "--passes",
        min=1,
        help="Network passes to compare at, multiples of the number of steps; may be given several times. By default "
        "1, 2, 3, 5 and 10 per step for few-step models, and 1 and 2 for others.",
    ),
]


def check_packages() -> None:
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'renoise bench needs {" and ".join(missing)}: pip install "renoise[bench]"')


def check_networks(sources: dict[str, str | None]) -> None:
    """Refuses paths of networks that do not exist; a name on the hub has one slash and does not begin with a dot."""
    for option, source in sources.items():
        looks_like_path = source is not None and (source.startswith((".", "/", "~")) or source.endswith(".pth"))
        if looks_like_path and "://" not in str(source) and not Path(str(source)).expanduser().exists():
            raise typer.BadParameter(f"--{option} {source}: no such file or folder")


def chosen_types(text: str | None) -> list[str] | None:
    from renoise.evaluation.pie import TYPES

    if text is None:
        return None
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in chosen if part not in TYPES]
    if unknown or not chosen:
        kinds = ", ".join(f"{number} {name}" for number, name in TYPES.items())
        raise typer.BadParameter(f"--types {text}: pass numbers such as 1,9, of {kinds}")
    return chosen


def command_line(context: typer.Context) -> str:
    """The command with all options that were given, for the head of what it writes."""
    words = ["renoise", "bench", str(context.info_name)]
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if value is None or value is False or value == option.get_default(context):
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            words += [option.opts[0]] if each is True else [option.opts[0], str(each)]
    return shlex.join(words)


def say(text: str) -> None:
    """Prints a line, as it is."""
    console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], object]]:
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
