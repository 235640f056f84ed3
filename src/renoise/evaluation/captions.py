"""Folders of pictures with captions, in the forms that data sets come in.

* ``metadata.jsonl`` or ``metadata.csv`` beside the pictures, as the imagefolder of Hugging Face has it: a row for each
  picture with its file_name, and its caption under text, caption or prompt.
* COCO's captions: a JSON with images (id, file_name) and annotations (image_id, caption).  The JSON lies in the folder
  or in its folder annotations; the pictures lie in the folder, in its folder images, or in the one that the JSON is
  named after (captions_val2017.json: val2017).  The first caption of a picture is its prompt.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renoise.evaluation.reconstruction import Captioned

__all__ = ["TEXTS", "read"]

TEXTS = ("text", "caption", "prompt")
"""The names under which a row may have its caption, in the order in which they are looked for."""


def read(folder: Path, count: int | None = None) -> list[Captioned]:
    """The pictures of a folder with their captions, in the order of the data set.  They are not opened yet.

    Args:
        folder: the folder of the data set.
        count: only the first so many.

    Raises:
        ValueError: no captions there, or an entry that lacks its picture's name or its caption, or names no file.
    """
    rows = _rows(folder)
    found = []
    for number, (file, caption) in enumerate(rows):
        if count is not None and number >= count:
            break
        if not file.is_file():
            raise ValueError(f"{folder}: the picture {file} does not exist")
        if not caption.strip():
            raise ValueError(f"{folder}: the picture {file} has an empty caption, and an inversion needs a prompt")
        found.append(Captioned(number, str(file.relative_to(folder)), file, caption.strip()))
    if not found:
        raise ValueError(f"{folder} lists no pictures")
    return found


def _rows(folder: Path) -> Iterator[tuple[Path, str]]:
    """Path and caption of each picture."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    if (folder / "metadata.jsonl").is_file():
        file = folder / "metadata.jsonl"
        lines = [line for line in _text(file).splitlines() if line.strip()]
        return (_entry(file, number, _object(file, number, line)) for number, line in enumerate(lines, 1))
    if (folder / "metadata.csv").is_file():
        file = folder / "metadata.csv"
        rows = csv.DictReader(_text(file).splitlines())
        return (_entry(file, number, row) for number, row in enumerate(rows, 2))
    for file in sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json")]):
        try:
            stored = json.loads(_text(file))
        except ValueError:
            continue
        if isinstance(stored, dict) and {"images", "annotations"} <= stored.keys():
            return _coco(folder, file, stored)
    raise ValueError(
        f"{folder} has no captions: it needs metadata.jsonl or metadata.csv with file_name and text, or a JSON of "
        "captions as COCO has it"
    )


def _entry(file: Path, number: int, row: dict[str, Any]) -> tuple[Path, str]:
    caption = next((row[name] for name in TEXTS if row.get(name)), None)
    if not row.get("file_name") or not isinstance(caption, str):
        raise ValueError(f"{file}, line {number}: needs file_name and one of {', '.join(TEXTS)}")
    return file.parent / str(row["file_name"]), caption


def _object(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{file}, line {number}: no JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{file}, line {number}: no JSON object")
    return row


def _coco(folder: Path, file: Path, stored: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    try:
        captions: dict[Any, str] = {}
        for annotation in stored["annotations"]:
            captions.setdefault(annotation["image_id"], annotation["caption"])
        listed = [(image["file_name"], captions[image["id"]]) for image in stored["images"] if image["id"] in captions]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: no captions of COCO: an entry has no {error}") from error
    places = (folder, folder / "images", folder / file.stem.removeprefix("captions_"))
    for name, caption in listed:
        path = next((place / name for place in places if (place / name).is_file()), folder / name)
        yield path, caption


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
