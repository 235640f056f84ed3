"""Batches for tests: pictures in a folder, a tiny pipeline and a recipe for it, and what two batches have in common."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from renoise import archive
from renoise.batch import shards
from renoise.batch.folder import Batch, make
from renoise.batch.recipe import Recipe
from renoise.batch.rows import LIGHT, Row
from renoise.batch.sources import Defaults

RECIPE = Recipe({"preset": "fast", "num_inference_steps": 2, "passes": 3, "size": [32, 40]}, batch_size=3)
DEFAULTS = Defaults("a cat", ("a dog",))


def picture(number: int) -> Image.Image:
    """Noise of a size of its own."""
    pixels = np.random.default_rng(number).integers(0, 256, (24 + number % 7, 33, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pictures(folder: Path, count: int) -> Path:
    """A folder with so many pictures, one of them in a folder below."""
    (folder / "below").mkdir(parents=True)
    for number in range(count):
        picture(number).save(folder / ("below" if number == 1 else "") / f"{number:02d}.png")
    return folder


def pipe() -> Any:
    """A tiny pipeline whose sampler draws noise."""
    from tests.helpers import tiny  # imports diffusers, which many tests do without

    return tiny.quiet(tiny.sd(tiny.euler_ancestral()))


def tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    """A WebDataset tar: the files of each sample by their endings."""
    with tarfile.open(path, "w") as out:
        for key, members in samples.items():
            for ending, data in members.items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
    return path


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def batch(out: Path, source: Path, recipe: Recipe = RECIPE, **options: Any) -> Batch:
    """A batch of four pictures a shard."""
    return make(out, source, DEFAULTS, recipe, **{"shard_size": 4, **options})


def rows(batch: Batch) -> list[Row]:
    """All rows of all files in the folder of shards, whether they are planned or not, but for half-written ones."""
    paths = sorted(path for path in (batch.folder / "shards").iterdir() if path.name[0] != ".")
    return [row for path in paths for row in shards.read(path)]


def numbers(row: Row) -> dict[str, Any]:
    """What must be equal in every run: all but the time that it took."""
    told = {name: getattr(row, name) for name in LIGHT if name != "seconds"}
    told |= {"reconstruction": row.reconstruction, "edits": row.edits}
    if row.inversion is not None:
        record = archive.loads(row.inversion)
        noises = record.trajectory.noises
        tensors = (record.trajectory.z_T, record.z_0, record.pixels, *(() if noises is None else (noises,)))
        told["tensors"] = [tensor.numpy().tobytes() for tensor in tensors]
    return told


def jsonl(path: Path, *table: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in table))
    return path
