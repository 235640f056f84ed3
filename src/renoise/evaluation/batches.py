"""The results of `renoise batch`, as inversions with a pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renoise import archive
from renoise.batch import folder, shards
from renoise.batch.rows import Row
from renoise.core.checks import file_path
from renoise.inverted import Inversion
from renoise.record import Record
from renoise.saved import joined, moved

__all__ = ["OpenBatch", "open_batch"]


class OpenBatch:
    """The pictures of a batch, read one by one; none is kept.

        for identifier, inversion in renoise.evaluation.open_batch("results").items():
            inversion.edit("a tiger on a sofa").save(f"{identifier}.png")

    Pictures that failed are passed over; `rows` has them.  Of a batch that is not complete, the shards that are there
    are read.
    """

    def __init__(self, batch: folder.Batch, pipe: Any = None) -> None:
        self.batch, self._pipe = batch, pipe
        self._first: Record | None = None

    def __iter__(self) -> Iterator[Inversion]:
        """The inversions, in the order of the pictures."""
        return (inversion for _, inversion in self.items())

    def items(self) -> Iterator[tuple[str, Inversion]]:
        """Ids and inversions, in the order of the pictures."""
        for row in self.rows():
            if row.inversion is not None:
                yield row.id, self._inversion(row)

    def rows(self) -> Iterator[Row]:
        """All that is kept of each picture, those that failed included."""
        for path in self.batch.shards():
            if path.exists():
                yield from shards.read(path)

    def __getitem__(self, identifier: str) -> Inversion:
        """The inversion of one picture.  Raises KeyError for one that is not there, or that failed, with its error."""
        for path in self.batch.shards():
            if path.exists() and identifier in shards.light(path)["id"].to_pylist():
                row = next(row for row in shards.read(path) if row.id == identifier)
                if row.inversion is None:
                    raise KeyError(f"{identifier!r} failed: {row.error}")
                return self._inversion(row)
        raise KeyError(f"{identifier!r} is not in {self.batch.folder}, as far as that is complete")

    def _inversion(self, row: Row) -> Inversion:
        """Checked against the pipeline where something tells it from the first one, which is always checked."""
        name = f"{row.id} in {self.batch.folder}"
        record = archive.loads(row.inversion or b"", name=name)
        if self._first is not None and _alike(self._first, record):
            return moved(record, self._pipe)
        inversion = joined(record, self._pipe, name)
        self._first, self._pipe = record, inversion.pipe
        return inversion


def open_batch(path: str | os.PathLike[str], pipe: Any = None) -> OpenBatch:
    """Opens the folder that `renoise batch` wrote.

    Args:
        path: the folder.
        pipe: the pipeline to regenerate with, as for `renoise.load`; an embedded model is loaded by itself, with the
            first inversion.

    Raises:
        ArchiveError: raised while reading: the pipeline is not the one that the batch was made with.
        ImportError: pyarrow is not installed.
        ValueError: the folder holds no batch.
    """
    return OpenBatch(folder.opened(Path(file_path(path))), pipe)


def _alike(first: Record, record: Record) -> bool:
    """Whether two records were made with the same pipeline and steps, so that what fits the one fits the other."""
    same = first.identity == record.identity and first.scheduler == record.scheduler and first.driver == record.driver
    table, other = first.trajectory.table, record.trajectory.table
    return same and len(table) == len(other) and table.difference(other) is None
