"""Tables of pictures: CSV, JSON lines or parquet, a row a picture.

| column | also called | what it holds |
|---|---|---|
| picture | file_name, image, path | where the picture lies, below the folder of the table or absolute; needed |
| id | | what tells it from the others; by default the path as written |
| prompt | text, caption | what the picture shows |
| edit_prompts | edit_prompt, to | prompts of edits: a list (in CSV a JSON list), or one text |
| seed | | of its noise, a whole number from 0 to 2**63 - 1 |

Further columns are allowed, and not read.  ``metadata.jsonl``, ``metadata.csv`` and ``metadata.parquet`` beside
pictures are such tables; Hugging Face's imagefolder has the same.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from renoise.batch.arrow import parquet
from renoise.core.checks import shown, whole
from renoise.texts import one_each

__all__ = ["CAPTIONS", "TABLES", "Described", "described", "picture_endings", "read"]

TABLES = (".csv", ".jsonl", ".parquet")
CAPTIONS = tuple(f"metadata{suffix}" for suffix in (".jsonl", ".csv", ".parquet"))
"""Names of tables that say what the pictures of a folder show."""
_PICTURE, _PROMPT = ("picture", "file_name", "image", "path"), ("prompt", "text", "caption")
_EDITS = ("edit_prompts", "edit_prompt", "to")
_ROWS = 1024  # of a parquet file at once


@dataclass(frozen=True)
class Described:
    """A picture as a source names it; None for what the source does not say.  See `renoise.batch.entries.Entry`."""

    id: str
    path: Path
    prompt: str | None = None
    edits: tuple[str, ...] | None = None
    seed: int | None = None
    offset: int | None = None
    length: int | None = None


def read(table: Path) -> Iterator[Described]:
    """The pictures of a table, in its order.

    Raises:
        ValueError: a row that cannot be read, by its number.
    """
    reader = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[table.suffix.lower()]
    for number, row in enumerate(reader(table), 1):
        place = f"row {number} of {table}"
        picture = _first(row, _PICTURE)
        if not isinstance(picture, str) or not picture:
            raise ValueError(
                f"{place} names no picture: {' or '.join(_PICTURE)} is {shown(picture)}; it must be the path of a file"
            )
        yield described(row, place, picture, table.parent / picture)


def picture_endings() -> set[str]:
    """How the names of picture files end, such as ".png": of all that PIL reads."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def described(row: Mapping[str, Any], place: str, identifier: str, path: Path, **span: int) -> Described:
    """A picture from the columns of its row, or from the JSON beside it.

    Args:
        row: values by name.
        place: what errors call the row.
        identifier: its id, where the row has none.
        path: the file that the picture lies in.
        span: offset and length in that file.

    Raises:
        ValueError: a value that cannot be.
    """
    prompt, edits, seed = _first(row, _PROMPT), _first(row, _EDITS), _first(row, ("seed",))
    named = _first(row, ("id",))
    if isinstance(edits, str):
        edits = json.loads(edits) if edits.startswith("[") else [edits]
    try:
        return Described(
            identifier if named is None else str(named),
            path,
            None if prompt is None else one_each([prompt], 1, "prompt")[0],
            None if edits is None else one_each(list(edits), len(edits), "edit_prompts"),
            None if seed is None else _seed(seed),
            **span,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error


def _seed(value: Any) -> int:
    number = int(value) if isinstance(value, str) or (isinstance(value, float) and value.is_integer()) else value
    return whole("seed", number, " is not a whole number from 0 to 2**63 - 1", most=2**63 - 1)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these columns that holds something."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _csv(table: Path) -> Iterator[dict[str, Any]]:
    with open(table, newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _jsonl(table: Path) -> Iterator[dict[str, Any]]:
    with open(table, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} of {table} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} of {table} is {shown(row)}, not an object like {{...}}")
            yield row


def _parquet(table: Path) -> Iterator[dict[str, Any]]:
    wanted = {*_PICTURE, *_PROMPT, *_EDITS, "seed", "id"}
    with parquet().ParquetFile(table) as file:
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for rows in file.iter_batches(batch_size=_ROWS, columns=columns):
            yield from rows.to_pylist()
