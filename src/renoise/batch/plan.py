"""The plan of a batch: its entries in a parquet file, a row group for each shard, and the names of the shards.

The name of a shard is its number and a part of the digest of what is asked for in it, with which settings.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from renoise import files
from renoise.batch.arrow import arrow, parquet
from renoise.batch.entries import Entry, digest

__all__ = ["names", "part", "survey", "write"]

_NAMES = b"renoise.shards"


def write(path: Path, entries: Iterable[Entry], shard_size: int, settings: str) -> None:
    """Writes the plan, entry after entry, so that a source of any length takes little memory.

    Args:
        path: the file.
        entries: what is to be done.
        shard_size: pictures of a shard.
        settings: what the names of the shards depend on besides the entries.
    """
    pa, columns = arrow(), _schema()
    with files.writing(path) as file, parquet().ParquetWriter(file, columns) as writer:
        chosen: list[str] = []
        for number, rows in enumerate(_chunks(entries, shard_size)):
            writer.write_table(pa.Table.from_pylist([vars(entry) for entry in rows], schema=columns))
            chosen.append(_name(number, rows, settings))
        writer.add_key_value_metadata({_NAMES: json.dumps(chosen).encode()})


def survey(entries: Callable[[], Iterable[Entry]], shard_size: int, settings: str) -> tuple[int, list[str]]:
    """How many pictures there are, and the names of their shards.

    Raises:
        ValueError: two pictures have one id.
    """
    hashes = array("Q")

    def hashed() -> Iterator[Entry]:
        for entry in entries():
            hashes.append(_hash(entry))
            yield entry

    chosen = [_name(number, rows, settings) for number, rows in enumerate(_chunks(hashed(), shard_size))]
    known, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    twice = {int(value) for value in known[counts > 1]}
    if twice:
        entry = next(entry for entry in entries() if _hash(entry) in twice)
        raise ValueError(f"two pictures have the id {entry.id!r}; ids must differ: name them in a column id")
    return len(hashes), chosen


def names(path: Path) -> list[str]:
    """The names of the shards of a plan, in their order, without ending."""
    found: list[str] = json.loads(parquet().read_metadata(path).metadata[_NAMES])
    return found


def part(path: Path, number: int) -> list[Entry]:
    """The entries of one shard."""
    with parquet().ParquetFile(path) as file:
        rows = file.read_row_group(number).to_pylist()
    return [Entry(**{**row, "edits": tuple(row["edits"])}) for row in rows]


def _schema() -> Any:
    pa = arrow()
    kinds = {"edits": pa.list_(pa.string()), "seed": pa.int64(), "offset": pa.int64(), "length": pa.int64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in Entry.__dataclass_fields__])


def _chunks(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while rows := list(islice(rest, size)):
        yield rows


def _name(number: int, rows: list[Entry], settings: str) -> str:
    content = hashlib.sha256((settings + digest(rows)).encode()).hexdigest()
    return f"{number:06d}-{content[:12]}"


def _hash(entry: Entry) -> int:
    return int.from_bytes(hashlib.sha256(entry.id.encode()).digest()[:8])
