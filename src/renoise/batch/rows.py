"""A row of the results: what a batch keeps of one picture."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from renoise.batch.arrow import arrow
from renoise.batch.entries import Entry

__all__ = ["FILES", "LIGHT", "Row", "failed", "schema"]


@dataclass(frozen=True)
class Row:
    """What is kept of one picture; most of it is None where it failed.

    Attributes:
        id, path, prompt, seed, edit_prompts: what was asked, as in `renoise.batch.entries.Entry`.
        error: why it failed, or None.
        fidelity: PSNR of the reconstruction against the picture in dB, where it was measured.
        ceiling: PSNR of the auto-encoder's round trip in dB, where it was measured.
        passes: network passes of the inversion.
        seconds: time of the batch that it was in, divided by the pictures of that batch.
        residuals: what each step left to solve, as in `renoise.core.trajectory.StepReport`, noisiest step first.
        inversion: all that `renoise.load` needs, the bytes of a file that `Inversion.save` writes.
        reconstruction: a PNG, where it was asked for.
        edits: a PNG for each prompt of `edit_prompts`.
    """

    id: str
    path: str
    prompt: str
    seed: int
    edit_prompts: list[str]
    error: str | None = None
    fidelity: float | None = None
    ceiling: float | None = None
    passes: int | None = None
    seconds: float | None = None
    residuals: list[float] | None = None
    inversion: bytes | None = None
    reconstruction: bytes | None = None
    edits: list[bytes] | None = None


FILES = ("inversion", "reconstruction", "edits")
"""The columns that hold files."""
LIGHT = tuple(column.name for column in fields(Row) if column.name not in FILES)
"""The others, which a manifest repeats."""


def failed(entry: Entry, error: BaseException) -> Row:
    """The row of a picture that failed."""
    message = str(error) or type(error).__name__
    return Row(entry.id, entry.path, entry.prompt, entry.seed, list(entry.edits), error=message)


def schema() -> Any:
    """The columns as pyarrow has them."""
    pa = arrow()
    kinds = {
        "seed": pa.int64(),
        "edit_prompts": pa.list_(pa.string()),
        "fidelity": pa.float64(),
        "ceiling": pa.float64(),
        "passes": pa.int32(),
        "seconds": pa.float64(),
        "residuals": pa.list_(pa.float32()),
        "inversion": pa.binary(),
        "reconstruction": pa.binary(),
        "edits": pa.list_(pa.binary()),
    }
    return pa.schema([(column.name, kinds.get(column.name, pa.string())) for column in fields(Row)])
