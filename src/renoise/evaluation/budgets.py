"""Reconstruction of captioned pictures by many methods at equal passes: figure 8 and table 2 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from renoise import files
from renoise.evaluation import plots, tables
from renoise.evaluation.methods import Method, describe
from renoise.evaluation.reconstruction import Captioned, check, measured
from renoise.evaluation.records import Records, digest
from renoise.images import ImageError, open_image
from renoise.pipelines.families import denoiser
from renoise.pipelines.identity import identity

__all__ = ["KEYS", "measure", "show"]

KEYS = ("sampler", "method", "number")


def measure(
    pipe: Any,
    pictures: Sequence[Captioned],
    methods: Sequence[Method],
    records: Records,
    *,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    told: Callable[[int], object] = lambda _: None,
) -> list[dict[str, str]]:
    """Reconstruct every picture by every method, go on where that was interrupted, and record it.

    Args:
        pipe: a pipeline, as for `renoise.invert`.
        pictures: the data set.
        methods: what to compare.
        records: with `KEYS`; a block for each method and picture.
        size: as for `renoise.invert`.
        batch: how many pictures are inverted at once.
        told: is called with the number of pictures that are done.

    Returns:
        The rows of these pictures and methods.
    """
    sampler = type(pipe.scheduler).__name__
    common = digest(identity(pipe), denoiser(pipe).dtype, sampler, dict(pipe.scheduler.config), size)
    own = {picture.number: digest(picture.caption, _content(picture)) for picture in pictures}
    for method in methods:
        depends = {
            f"{sampler}: {method.name}: {number}": digest(common, describe(method), content)
            for number, content in own.items()
        }
        blocks = records.blocks()
        waiting = [
            picture
            for picture in pictures
            if blocks.get(name := f"{sampler}: {method.name}: {picture.number}") != depends[name]
        ]
        told(len(pictures) - len(waiting))
        block = {"sampler": sampler, "method": method.name, "family": method.family}
        with records.pending() as write:
            for start in range(0, len(waiting), batch):
                part = waiting[start : start + batch]
                write(depends, [block | dict(row) for row in measured(pipe, part, method, size=size)])
                told(len(part))
    wanted = {(sampler, method.name, str(number)) for method in methods for number in own}
    order = {method.name: place for place, method in enumerate(methods)}
    found = [row for row in records.rows() if (row["sampler"], row["method"], row["number"]) in wanted]
    return sorted(found, key=lambda row: (order[row["method"]], int(row["number"])))


def show(rows: Sequence[dict[str, str]], folder: Path, command: str) -> str:
    """Write ``folder.md`` and ``folder.png``, and say how many pictures failed.

    Args:
        rows: what `measure` returned.
        folder: where to write.
        command: the command that made the rows, for the head of the page.
    """
    said = check(rows)
    failures = {(row["picture"], row["error"]) for row in rows if row["error"]}
    listed = "".join(f"* {name}: {error}\n" for name, error in sorted(failures))
    counted = "".join(f"* {line}\n" for line in said.splitlines())
    page = f"<!-- {command} -->\n{tables.page(rows)}\n## Failures\n\n{counted}{listed}"
    files.write(folder / "folder.md", page.encode())
    families = list(dict.fromkeys(row["family"] for row in rows))
    plots.reconstruction(rows, folder / "folder.png", plots.looks(families))
    return said


def _content(picture: Captioned) -> bytes:
    """The bytes of a picture; none if there are none, so that it is tried again only once that has changed."""
    try:
        return picture.image.read_bytes() if isinstance(picture.image, Path) else open_image(picture.image).tobytes()
    except (OSError, ImageError):
        return b""
