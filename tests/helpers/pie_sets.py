"""Small data sets in the forms of PIE-Bench."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

RUNS = [512 * 100 + 100, 50, 512 * 101 + 100, 50]


def image(seed: int, side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def entry(name: str, kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "image_path": f"{kind}_kind/{name}.png",
        "original_prompt": "a [cat] on a mat",
        "editing_prompt": "a [dog] on a mat",
        "editing_instruction": "Turn the cat into a dog",
        "editing_type_id": kind,
        "blended_word": "cat dog",
        "mask": RUNS,
        **changes,
    }


def published(folder: Path, kinds: Sequence[str] = ("0", "1", "1"), **changes: Any) -> Path:
    """A folder as PIE-Bench is published, with a picture for each kind of edit; ids are 000, 001 ..."""
    entries = {}
    for number, kind in enumerate(kinds):
        name = f"{number:03d}"
        entries[name] = entry(name, kind, **changes)
        path = folder / "annotation_images" / entries[name]["image_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        image(number).save(path)
    (folder / "mapping_file.json").write_text(json.dumps(entries))
    return folder


def as_parquet(folder: Path) -> Path:
    """The same in the form of PIE_Bench_pp: bytes of pictures, masks as texts, a folder for each kind of edit."""
    for number, name in ((0, "0_random_140"), (1, "1_change_object_80")):
        data = io.BytesIO()
        image(number).save(data, "PNG")
        row = {
            "image": {"bytes": data.getvalue(), "path": None},
            "id": f"{number:03d}",
            "source_prompt": "a [cat] on a mat",
            "target_prompt": "a [dog] on a mat",
            "edit_action": "{}",
            "aspect_mapping": "{}",
            "blended_words": "[]",
            "mask": str(RUNS),
        }
        (folder / name).mkdir(parents=True)
        parquet.write_table(pyarrow.Table.from_pylist([row]), folder / name / "V1-00000-of-00001.parquet")
    return folder
