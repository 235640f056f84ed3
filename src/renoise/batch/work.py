"""The work on a batch of pictures: the one function that the local loop, Ray's actors and the command line call."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from renoise import archive, images, metrics
from renoise.api import invert
from renoise.batch.entries import Entry
from renoise.batch.recipe import Recipe
from renoise.batch.rows import Row, failed
from renoise.core.progress import Cancelled, Progress
from renoise.inverted import Inversion

__all__ = ["check", "work"]

_FATAL = (torch.AcceleratorError, MemoryError, Cancelled)
"""Not the fault of a picture: after an error of the accelerator nothing works in this process any more."""
_Opened = tuple[Entry, Image.Image]


def check(pipe: Any, recipe: Recipe, *, edits: bool = True) -> None:
    """Raises whatever `renoise.invert` and `Inversion.edit` have against the recipe, on a grey picture.

    Inverting is stopped before its first pass.  Where there are to be `edits`, the grey picture is then inverted after
    all, and an edit of it is stopped before its first pass.
    """
    grey, text = Image.new("RGB", (64, 64), "grey"), "a grey square"
    with suppress(Cancelled):
        invert(pipe, grey, text, progress=_stopping(), **recipe.invert)
    if edits:
        inversion = invert(pipe, grey, text, progress=Progress(), **recipe.invert)
        with suppress(Cancelled):
            # a mask has the shape of the pictures, not of this one
            inversion.edit(text, progress=_stopping(), **{**recipe.edit, "mask": None})


def _stopping() -> Progress:
    """A progress that stops the work before its first pass."""
    return Progress(lambda progress: progress.cancel())


def work(pipe: Any, recipe: Recipe, entries: Sequence[Entry]) -> list[Row]:
    """Inverts pictures together, reconstructs and edits them where that is asked.

    A picture that cannot be opened or worked on gets a row that says why.  If the whole batch fails, for instance for
    want of memory, its pictures are worked on one by one, so that only those fail that fail alone.

    Args:
        pipe: the pipeline, as for `renoise.invert`.
        recipe: what to do with each picture.
        entries: the pictures; they are worked on at once, however many there are.

    Returns:
        A row for each entry, in their order.

    Raises:
        torch.AcceleratorError, MemoryError: this process cannot go on; no picture is to blame.
    """
    rows: dict[str, Row] = {}
    opened: list[_Opened] = []
    for entry in entries:
        try:
            opened.append((entry, entry.open()))
        except images.ImageError as error:
            rows[entry.id] = failed(entry, error)
    rows |= {row.id: row for row in _attempted(pipe, recipe, opened)} if opened else {}
    return [rows[entry.id] for entry in entries]


def _attempted(pipe: Any, recipe: Recipe, opened: Sequence[_Opened]) -> list[Row]:
    """All together, or one by one where that fails."""
    try:
        return _together(pipe, recipe, opened)
    except _FATAL:
        raise
    except Exception as error:  # networks raise anything
        if len(opened) == 1:
            return [failed(opened[0][0], error)]
    # here the exception is gone, and with it the memory that its frames held
    return [row for one in opened for row in _attempted(pipe, recipe, [one])]


def _together(pipe: Any, recipe: Recipe, opened: Sequence[_Opened]) -> list[Row]:
    started = time.perf_counter()
    entries = [entry for entry, _ in opened]
    inversion = invert(
        pipe,
        [picture for _, picture in opened],
        [entry.prompt for entry in entries],
        generator=[torch.Generator().manual_seed(entry.seed) for entry in entries],
        progress=Progress(),  # no bar
        **recipe.invert,
    )
    if not bool(inversion.latents.isfinite().all()):
        raise ValueError("latents are not finite: a network overflowed, as float16 ones do; use bfloat16 or float32")
    fidelity, ceiling, reconstructions = _reconstructed(inversion, recipe)
    edits = _edits(inversion, recipe, [entry.edits for entry in entries])
    records = inversion.record.singles()
    seconds = (time.perf_counter() - started) / len(entries)
    return [
        Row(
            id=entry.id,
            path=entry.path,
            prompt=entry.prompt,
            seed=entry.seed,
            edit_prompts=list(entry.edits),
            fidelity=fidelity[number],
            ceiling=ceiling[number],
            passes=inversion.passes,
            seconds=seconds,
            residuals=[float(step.residuals[-1, number]) for step in inversion.trajectory.steps],
            inversion=archive.dumps(records[number], latents=getattr(torch, recipe.latents)),
            reconstruction=reconstructions[number],
            edits=edits[number],
        )
        for number, entry in enumerate(entries)
    ]


def _reconstructed(inversion: Inversion, recipe: Recipe) -> tuple[list[Any], list[Any], list[bytes | None]]:
    """dB of reconstruction and round trip, and PNGs, per picture; None for what is not asked."""
    nothing: list[Any] = [None] * len(inversion.pixels)
    if not recipe.measure and not recipe.reconstruct:
        return nothing, nothing, nothing
    pixels = inversion.regenerate(inversion.scene, progress=Progress())
    fidelity, ceiling = nothing, nothing
    if recipe.measure:
        fidelity, ceiling = _decibels(pixels, inversion), inversion.ceiling().tolist()
    if not recipe.reconstruct:
        return fidelity, ceiling, nothing
    pictures = zip(images.to_pil(pixels), inversion.record.boxes, strict=True)
    return fidelity, ceiling, [_png(images.unfit(picture, box)) for picture, box in pictures]


def _decibels(pixels: Tensor, inversion: Inversion) -> list[float]:
    found: list[float] = metrics.psnr(pixels, inversion.pixels).tolist()
    return found


def _edits(inversion: Inversion, recipe: Recipe, prompts: Sequence[Sequence[str]]) -> list[list[bytes]]:
    """A PNG for each prompt of each picture.  The first prompts of all pictures are one batch, then the second ones."""
    edits: list[list[bytes]] = [[] for _ in prompts]
    for turn in range(max(map(len, prompts))):
        rows = [row for row, wanted in enumerate(prompts) if len(wanted) > turn]
        some = inversion if len(rows) == len(prompts) else Inversion(inversion.record.only(rows), inversion.pipe)
        texts = [prompts[row][turn] for row in rows]
        for row, picture in zip(rows, some.edit(texts, progress=Progress(), **recipe.edit), strict=True):
            edits[row].append(_png(picture))
    return edits


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
