"""Where the pictures of a batch come from: a folder, with or without captions, a table of pictures, or WebDataset tars.

Entries are made one after the other, in the same order each time, so that a source of any length takes little memory.
Of folders and tables only the names are read here, and of tars only the headers and the small files beside pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from renoise.batch import tables, tars
from renoise.batch.entries import Entry, seed_of
from renoise.batch.tables import CAPTIONS, TABLES, Described, picture_endings

__all__ = ["Defaults", "entries"]


@dataclass(frozen=True)
class Defaults:
    """What holds for pictures of which the source does not say otherwise.

    Attributes:
        prompt: what a picture shows, or None where the source must say it.
        edits: prompts of the edits.
        seed: from which, and the id, each picture's own seed is made.
    """

    prompt: str | None = None
    edits: tuple[str, ...] = ()
    seed: int = 0


def entries(source: Path, defaults: Defaults) -> Iterator[Entry]:
    """The pictures of a source, one after the other.

    Args:
        source: a folder of pictures, searched with all folders below it; a folder with metadata.jsonl, metadata.csv or
            metadata.parquet; a folder of tar files; a table, as .csv, .jsonl or .parquet; or one tar file, all as
            `renoise.batch.tables` and `renoise.batch.tars` say.
        defaults: for what the source does not say.

    Raises:
        ValueError: no such source, one of another kind, an empty one, or a picture without a prompt.
    """
    found = False
    for described in _described(source):
        found = True
        yield _entry(described, defaults, source)
    if not found:
        raise ValueError(f"{source} holds no picture; pass a folder of pictures, a table of them, or tar files")


def _described(source: Path) -> Iterator[Described]:
    if source.is_dir():
        for name in CAPTIONS:
            if (source / name).is_file():
                return tables.read(source / name)
        archives = sorted(path for path in source.iterdir() if path.suffix == ".tar" and path.is_file())
        return tars.read(archives) if archives else _folder(source)
    if not source.exists():
        raise ValueError(f"{source} does not exist; pass a folder of pictures, a table of them, or a tar file")
    if source.suffix.lower() in TABLES:
        return tables.read(source)
    if source.suffix.lower() == ".tar":
        return tars.read([source])
    raise ValueError(
        f"{source} is neither a folder nor one of {', '.join((*TABLES, '.tar'))}; pass a folder of pictures, a table "
        "of them, or a tar file that is not compressed"
    )


def _folder(source: Path) -> Iterator[Described]:
    """All files below a folder whose names end as those of pictures do, by name."""
    endings = picture_endings()
    for folder, below, names in os.walk(source):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix.lower() in endings and not name.startswith("."):
                yield Described(path.relative_to(source).as_posix(), path)


def _entry(described: Described, defaults: Defaults, source: Path) -> Entry:
    prompt = defaults.prompt if described.prompt is None else described.prompt
    if not prompt or not prompt.strip():
        raise ValueError(
            f"nothing says what {described.id} in {source} shows; pass prompt= for all pictures, or name it for each, "
            "in metadata.jsonl or a table of pictures"
        )
    return Entry(
        id=described.id,
        path=os.path.abspath(described.path),
        prompt=prompt,
        edits=defaults.edits if described.edits is None else described.edits,
        seed=seed_of(described.id, defaults.seed) if described.seed is None else described.seed,
        offset=described.offset,
        length=described.length,
    )
