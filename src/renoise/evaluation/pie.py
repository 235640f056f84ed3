"""PIE-Bench (Ju et al., "PnP Inversion", ICLR 2024) as it is published, and in the form of parquet files.

* **Published**: a folder with ``mapping_file.json`` and ``annotation_images``.  The JSON has an entry for each picture,
  by its id: image_path (below annotation_images), original_prompt and editing_prompt, in which square brackets mark
  what differs, editing_instruction, editing_type_id "0" to "9", blended_word, and the mask (see
  `renoise.evaluation.run_lengths`).
* **Parquet**: ``0_random_140/V1-00000-of-00001.parquet`` and so on, with the columns image, id, source_prompt,
  target_prompt, mask and more, as the data set PIE_Bench_pp has.  Its prompts were revised, so its scores are not those
  of PIE-Bench.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from renoise.evaluation.run_lengths import Mask, decode, numbers
from renoise.images import ImageError, open_image

__all__ = ["IMAGES", "MAPPING", "TYPES", "Case", "read"]

TYPES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
"""The kinds of edits, by their number in the data set."""
MAPPING = "mapping_file.json"
IMAGES = "annotation_images"


@dataclass(frozen=True)
class Case:
    """One picture of PIE-Bench and the edit that is asked for.

    Attributes:
        id: its name in the data set.
        type: the kind of edit, a key of `TYPES`.
        source_prompt: what the picture shows.
        target_prompt: what it shall show.
        runs: run lengths of the mask of what is to be edited.
        stored: path of the picture, or the bytes of its file.
    """

    id: str
    type: str
    source_prompt: str
    target_prompt: str
    runs: tuple[int, ...]
    stored: Path | bytes

    def image(self) -> Image.Image:
        """The picture, RGB.  Raises `renoise.ImageError` if it cannot be read."""
        if isinstance(self.stored, Path):
            return open_image(self.stored)
        try:
            return open_image(Image.open(io.BytesIO(self.stored)))
        except (OSError, ImageError) as error:
            raise ImageError(f"the picture {self.id} cannot be read: {error}") from error

    def mask(self) -> Mask:
        """Where the picture is to be edited, [512, 512], with the border that the benchmark adds."""
        return decode(self.runs)


def read(folder: Path, types: Sequence[str] | None = None) -> list[Case]:
    """All cases in a folder, in the order of the data set.  Pictures are not opened yet.

    Args:
        folder: the folder of the data set, in either form.
        types: only these kinds of edits, keys of `TYPES`.

    Raises:
        ImportError: parquet files, and pyarrow is not installed.
        ValueError: no such data set there, an entry that lacks something, or no case of these types.
    """
    if (folder / MAPPING).is_file():
        found = list(_published(folder))
    else:
        tables = sorted(path for path in folder.rglob("*.parquet") if _type_of(path, folder))
        if not tables:
            raise ValueError(
                f"{folder} holds no PIE-Bench: it needs {MAPPING} and {IMAGES}, as the benchmark is published, or the "
                "parquet files of PIE_Bench_pp in folders such as 1_change_object_80"
            )
        found = [case for path in tables for case in _rows(path, _type_of(path, folder))]
    chosen = [case for case in found if types is None or case.type in types]
    if not chosen:
        raise ValueError(f"{folder} has no pictures of the types {', '.join(types or [])}")
    seen: set[str] = set()
    for case in chosen:
        if case.id in seen or not re.fullmatch(r"[\w.-]+", case.id):  # ids name files of results
            raise ValueError(
                f"{folder}: the id {case.id!r} occurs twice, or has signs other than letters, digits, . _ -"
            )
        seen.add(case.id)
    return chosen


def _published(folder: Path) -> Iterator[Case]:
    file = folder / MAPPING
    try:
        entries: Mapping[str, Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    for name, entry in entries.items():
        try:
            yield Case(
                name,
                str(entry["editing_type_id"]),
                _plain(entry["original_prompt"]),
                _plain(entry["editing_prompt"]),
                tuple(numbers(entry["mask"])),
                folder / IMAGES / entry["image_path"],
            )
        except KeyError as error:
            raise ValueError(f"{file}: the entry {name!r} has no {error}") from error
        except ValueError as error:
            raise ValueError(f"{file}: the entry {name!r}: {error}") from error


def _rows(path: Path, kind: str) -> Iterator[Case]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f'{path} is a parquet file, and reading it needs pyarrow: pip install "renoise[bench]"'
        ) from error
    for row in parquet.read_table(path).to_pylist():
        try:
            image = row["image"]
            data = image["bytes"] if isinstance(image, dict) else image
            if data is None:
                data = path.parent / image["path"]
            prompts = _plain(row["source_prompt"]), _plain(row["target_prompt"])
            yield Case(str(row["id"]), kind, *prompts, tuple(numbers(row["mask"])), data)
        except KeyError as error:
            raise ValueError(f"{path}: a row has no {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: the row {row.get('id')!r}: {error}") from error


def _type_of(path: Path, folder: Path) -> str:
    """The kind of edit that the folders above a parquet file name, such as 1_change_object_80; "" if none does."""
    for part in (*path.relative_to(folder).parts[:-1], folder.name):
        found = re.match(r"([0-9])_[a-z]", part)
        if found:
            return found[1]
    return ""


def _plain(prompt: str) -> str:
    """A prompt without the brackets around what differs."""
    return prompt.replace("[", "").replace("]", "").strip()
