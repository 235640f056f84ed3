"""Several pictures, or a folder of them, for `renoise invert` and `renoise edit`: a file for each result.

The work is `renoise.batch.work.work`, as in `renoise batch`, which keeps more, and can be broken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from renoise import files
from renoise.apps.cli import pipes
from renoise.apps.cli.options import INVERSION, writable
from renoise.apps.cli.output import console, say_written

if TYPE_CHECKING:  # torch takes seconds to import, and a mistyped command line is answered before
    from renoise.batch.entries import Entry
    from renoise.batch.rows import Row
    from renoise.batch.sources import Defaults

__all__ = ["are_several", "inversions", "work_on"]

_TOGETHER = 16


def are_several(pictures: Sequence[Path]) -> bool:
    """Whether this is more than one picture file: several, or a folder."""
    return len(pictures) > 1 or pictures[0].is_dir()


def inversions(row: Row) -> Iterator[tuple[str, bytes]]:
    """The file of an inversion: its ending, and what is in it."""
    yield INVERSION, row.inversion or b""


def edits(row: Row) -> Iterator[tuple[str, bytes]]:
    """The files of edits, numbered where they are several."""
    for number, data in enumerate(row.edits or [], 1):
        yield ("" if len(row.edits or []) == 1 else f"-{number}") + ".png", data


def work_on(
    pictures: Sequence[Path],
    output: Path,
    chosen: pipes.Chosen,
    prompt: str | None,
    to: Sequence[str] = (),
    *,
    edit: dict[str, Any] | None = None,
    seed: int | None,
    size: str | None,
    **settings: Any,
) -> None:
    """Inverts pictures, or edits them where `to` says how, and writes a file for each result into a folder.

    Every picture has the seed that it would have alone.  One that fails is told, and does not stop the others.

    Raises:
        typer.BadParameter: an inversion among the pictures, two results of one name, or no folder to write to.
        typer.Exit: some pictures failed; the others are written.
        ValueError: what holds for all pictures cannot work.
    """
    from renoise.batch.recipe import Recipe
    from renoise.batch.sources import Defaults
    from renoise.batch.work import check, work

    if saved := [path for path in pictures if path.suffix.lower() == INVERSION]:
        raise typer.BadParameter(f"{saved[0]} is inverted already, and such files are edited one by one")
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"{output} is a file; for several pictures, name a folder")
    writable(output / "picture.png")
    asked = list(_entries(pictures, Defaults(prompt, tuple(to)), seed or 0))
    _check_names(asked)
    recipe = Recipe(pipes.keywords(size, **settings), pipes.keywords(None, **(edit or {})), measure=not to)
    pipe = pipes.pipeline(chosen)
    check(pipe, recipe, edits=bool(to))
    failed, rest = 0, iter(asked)
    while batch := list(islice(rest, _TOGETHER)):
        for row in work(pipe, recipe, batch):
            failed += row.error is not None
            _write(row, output, edits(row) if to else inversions(row))
    if failed:
        console.print(f"[red]{failed} of {len(asked)} pictures failed[/red]", highlight=False)
        raise typer.Exit(1)


def _entries(pictures: Iterable[Path], defaults: Defaults, seed: int) -> Iterator[Entry]:
    from renoise.batch.entries import Entry
    from renoise.batch.sources import entries

    for path in pictures:
        if path.is_dir():
            found = entries(path, defaults)
        elif defaults.prompt:
            found = iter([Entry(path.name, str(path), defaults.prompt, defaults.edits, seed)])
        else:
            raise typer.BadParameter('say what the pictures show, e.g. --prompt "red apple, blob style"')
        yield from (Entry(one.id, one.path, one.prompt, one.edits, seed, one.offset, one.length) for one in found)


def _check_names(asked: Sequence[Entry]) -> None:
    """Refuses two pictures of one name, such as a.png and a.jpg, or a/x.png and b/x.png."""
    names: dict[Path, str] = {}
    for entry in asked:
        name = Path(entry.id).with_suffix("")
        if name in names:
            raise typer.BadParameter(f"{names[name]} and {entry.path} would be written to one file; rename one of them")
        names[name] = entry.path


def _write(row: Row, output: Path, results: Iterable[tuple[str, bytes]]) -> None:
    if row.error is not None:
        console.print(f"[red]failed:[/red] {escape(row.id)}: {escape(row.error)}", highlight=False, soft_wrap=True)
        return
    for ending, data in results:
        path = output / Path(row.id).with_suffix("")
        path = path.with_name(path.name + ending)
        files.write(path, data)
        say_written(path)
    if row.fidelity is not None:
        told = f"reconstruction {row.fidelity:.1f} dB, auto-encoder ceiling {row.ceiling:.1f} dB, {row.passes} passes"
        console.print(told, soft_wrap=True)
