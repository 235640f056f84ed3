"""Shards: files with the rows of some pictures, as parquet or as WebDataset tars, written wholly or not at all.

A parquet shard has the columns of `renoise.batch.rows.Row`, and a row group for each batch of pictures.

In a tar, the sample ``000017`` is the eighteenth picture of the shard.  ``000017.json`` holds its row but for the
files, ``000017.inversion.safetensors`` what `renoise.load` reads, ``000017.reconstruction.png`` and
``000017.edit-0.png`` (and -1 ...) pictures, each where there is one.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal

from renoise import files
from renoise.batch.arrow import arrow, parquet
from renoise.batch.rows import FILES, LIGHT, Row, schema

__all__ = ["ENDINGS", "Kind", "light", "light_schema", "read", "write"]

Kind = Literal["parquet", "webdataset"]
ENDINGS: dict[Kind, str] = {"parquet": ".parquet", "webdataset": ".tar"}
_INVERSION, _RECONSTRUCTION, _EDIT = "inversion.safetensors", "reconstruction.png", "edit-"


def write(path: Path, batches: Iterable[Sequence[Row]]) -> None:
    """Writes a shard of the kind that its name says, batch after batch; it appears when the last one is in it."""
    with files.writing(path) as file:
        if path.suffix == ENDINGS["parquet"]:
            _write_parquet(file, batches)
        else:
            _write_tar(file, batches)


def read(path: Path) -> Iterator[Row]:
    """The rows of a shard, one after the other."""
    return _read_parquet(path) if path.suffix == ENDINGS["parquet"] else _read_tar(path, whole=True)


def light(path: Path) -> Any:
    """A pyarrow table of a shard's rows without the files, of which nothing is read."""
    if path.suffix == ENDINGS["parquet"]:
        return parquet().read_table(path, columns=list(LIGHT))
    rows = [{name: getattr(row, name) for name in LIGHT} for row in _read_tar(path, whole=False)]
    return arrow().Table.from_pylist(rows, schema=light_schema())


def light_schema() -> Any:
    """The columns without the files, as pyarrow has them."""
    return arrow().schema([column for column in schema() if column.name in LIGHT])


def _write_parquet(file: BinaryIO, batches: Iterable[Sequence[Row]]) -> None:
    columns = schema()
    with parquet().ParquetWriter(file, columns, compression="zstd", use_dictionary=False) as writer:
        for rows in batches:
            # not asdict, which copies
            plain = [{column.name: getattr(row, column.name) for column in fields(Row)} for row in rows]
            writer.write_table(arrow().Table.from_pylist(plain, schema=columns))


def _read_parquet(path: Path) -> Iterator[Row]:
    with parquet().ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for number in range(len(table)):
                yield Row(**table.slice(number, 1).to_pylist()[0])


def _write_tar(file: BinaryIO, batches: Iterable[Sequence[Row]]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, row in enumerate(row for rows in batches for row in rows):
            told = {name: value for name, value in asdict(row).items() if name in LIGHT}
            _add(archive, f"{number:06d}.json", json.dumps(told).encode())
            edits = {f"{_EDIT}{place}.png": data for place, data in enumerate(row.edits or [])}
            members = {_INVERSION: row.inversion, _RECONSTRUCTION: row.reconstruction, **edits}
            for name, data in members.items():
                if data is not None:
                    _add(archive, f"{number:06d}.{name}", data)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no owner and of 1970, so that equal content gives equal bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _read_tar(path: Path, *, whole: bool) -> Iterator[Row]:
    """The rows of a tar; without their files unless `whole`."""
    told: dict[str, Any] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] # or tarfile keeps them all
            name = member.name.partition(".")[2]
            if name == "json":
                if told:
                    yield Row(**told)
                told = json.loads(_bytes(archive, member))
                told["edits"] = None if told["error"] is not None or not whole else []
            elif whole and name.startswith(_EDIT):
                told["edits"].append(_bytes(archive, member))
            elif whole:
                told[FILES[0] if name == _INVERSION else FILES[1]] = _bytes(archive, member)
        if told:
            yield Row(**told)


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # regular files alone are written
    return file.read()
