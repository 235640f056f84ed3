"""Pictures in WebDataset tars: files of one name but for their endings are one sample.

``000017.jpg`` is the picture of the sample ``000017``, ``000017.txt`` says what it shows, and ``000017.json`` may hold
prompt, edit_prompts, seed and id, as the columns of `renoise.batch.tables` do.  Other members are passed over.  The
bytes of pictures are not read here: an entry says where in the tar they lie.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from renoise.batch.tables import Described, described, picture_endings

__all__ = ["read"]

_LARGEST_TEXT = 1 << 20


def read(archives: Sequence[Path]) -> Iterator[Described]:
    """The pictures of tar files, in their order.

    Raises:
        ValueError: a file that is no tar, or a compressed one; a text or JSON beside a picture that cannot be read.
    """
    for path in archives:
        try:
            yield from _samples(path)
        except tarfile.TarError as error:
            raise ValueError(
                f"{path} cannot be read as a tar file ({error}); a compressed one must be unpacked to .tar first"
            ) from error


def _samples(path: Path) -> Iterator[Described]:
    endings = picture_endings()
    key: str | None = None
    picture: tarfile.TarInfo | None = None
    told: dict[str, Any] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] # or tarfile keeps them all
            if not member.isfile():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            this = f"{folder}/{stem}" if folder else stem
            if this != key:
                yield from _sample(path, key, picture, told)
                key, picture, told = this, None, {}
            if picture is None and f".{ending.lower()}" in endings:
                picture = member
            elif ending in ("txt", "json"):
                told |= _told(archive, member, path)
        yield from _sample(path, key, picture, told)


def _sample(path: Path, key: str | None, picture: tarfile.TarInfo | None, told: dict[str, Any]) -> Iterator[Described]:
    if key is not None and picture is not None:
        yield described(told, f"{key} in {path}", key, path, offset=picture.offset_data, length=picture.size)


def _told(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> dict[str, Any]:
    """What a small file beside a picture says, as columns."""
    place = f"{member.name} in {path}"
    file = archive.extractfile(member)
    if file is None or member.size > _LARGEST_TEXT:
        raise ValueError(f"{place} has {member.size} bytes, too many to say what a picture shows")
    try:
        text = file.read().decode()
        told = {"caption": text.strip()} if member.name.endswith(".txt") else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place} cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{place} is no JSON object")
    return told
