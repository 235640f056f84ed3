"""Shards of both kinds: what is written is read back, here and by the packages that people read data sets with."""

from __future__ import annotations

import gc
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import webdataset
from PIL import Image
from safetensors.torch import load as tensors

import renoise
from renoise import archive
from renoise.batch import shards
from renoise.batch.folder import Batch, fill_all
from renoise.batch.rows import LIGHT, Row
from renoise.batch.shards import ENDINGS, Kind
from renoise.batch.worker import ready
from renoise.evaluation import open_batch
from tests.helpers import batches

KINDS: tuple[Kind, ...] = ("parquet", "webdataset")
ROWS = [
    Row(
        "a/é.png",
        "/x/a",
        "a cat",
        7,
        ["a dog", "a hen"],
        None,
        30.5,
        33.25,
        4,
        0.5,
        [0.5, 0.25],
        b"I",
        b"R",
        [b"1", b"2"],
    ),
    Row("b.png", "/x/b", 'a "cat"', 2**48 - 1, [], "gone"),
    Row("c.png", "/x/c", "a cow", 0, [], None, None, None, 4, 0.5, [], b"J", None, []),
]


@pytest.fixture(scope="module", params=KINDS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """A real batch of six pictures, of which one cannot be read."""
    folder = tmp_path_factory.mktemp(request.param)
    source = batches.pictures(folder / "pictures", 6)
    (source / "03.png").write_bytes(b"no picture")
    recipe = replace(batches.RECIPE, reconstruct=True)
    batch = batches.batch(folder / "out", source, recipe, kind=request.param)
    fill_all(batch, ready(batch, batches.pipe()))
    batch.finish()
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_read_as_they_were_written(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / f"rows{ENDINGS[kind]}"
    shards.write(path, [ROWS[:2], ROWS[2:]])
    assert list(shards.read(path)) == ROWS
    assert shards.light(path).to_pylist() == [{name: getattr(row, name) for name in LIGHT} for row in ROWS]
    before = path.read_bytes()
    shards.write(path, iter([ROWS[:2], ROWS[2:]]))
    assert path.read_bytes() == before


def test_pandas_and_datasets_read_the_manifest(finished: Batch, tmp_path: Path) -> None:
    manifest = str(finished.folder / "manifest.parquet")
    frame = pd.read_parquet(manifest)
    table = datasets.load_dataset("parquet", data_files=manifest, split="train", cache_dir=str(tmp_path))
    assert list(frame.id) == table["id"] == ["00.png", "02.png", "03.png", "04.png", "05.png", "below/01.png"]
    assert list(frame.error.isna()) == [True, True, False, True, True, True]
    assert table["edit_prompts"][0] == ["a dog"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves files open
def test_datasets_read_the_shards(finished: Batch, tmp_path: Path) -> None:
    paths = [str(path) for path in finished.shards()]
    if finished.settings["shards"] == "parquet":
        table = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path))
        seen = table.cast_column("reconstruction", datasets.Image())[0]["reconstruction"]
        assert seen.size == (40, 29)  # 33 x 24 pixels in 40 x 32
        assert tensors(table[0]["inversion"])["z_T"].shape == (1, 4, 8, 10)
    else:
        samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
        gc.collect()
        told = [json.loads(sample["json"]) for sample in samples]
        assert [row["id"] for row in told] == [row.id for row in batches.rows(finished)]
        assert Image.open(io.BytesIO(samples[0]["edit-0.png"])).size == (40, 29)
        assert tensors(samples[0]["inversion.safetensors"])["z_T"].shape == (1, 4, 8, 10)


def test_an_inversion_of_a_shard_is_a_file_that_load_reads(finished: Batch, tmp_path: Path) -> None:
    row = batches.rows(finished)[0]
    (tmp_path / "one.safetensors").write_bytes(row.inversion or b"")
    inversion = renoise.load(tmp_path / "one.safetensors", batches.pipe())
    assert float(inversion.fidelity()) == pytest.approx(row.fidelity, abs=1e-3)


# --- open_batch ---


def test_inversions_come_back_one_by_one(finished: Batch) -> None:
    opened, pipe = open_batch(finished.folder, batches.pipe()), batches.pipe()
    rows = {row.id: row for row in batches.rows(finished)}
    found = dict(opened.items())
    assert list(found) == ["00.png", "02.png", "04.png", "05.png", "below/01.png"]
    assert [inversion.scene.prompts for inversion in opened] == [("a cat",)] * 5
    for identifier, inversion in found.items():
        row = rows[identifier]
        assert float(inversion.fidelity()) == pytest.approx(row.fidelity, abs=1e-3)
        edited = np.asarray(inversion.edit("a dog"), float)
        kept = np.asarray(Image.open(io.BytesIO((row.edits or [])[0])), float)
        assert edited.shape == kept.shape
        assert np.abs(edited - kept).max() <= 1  # one picture at a time rounds differently than three
    again = open_batch(finished.folder, pipe)["05.png"]
    assert again.latents.equal(found["05.png"].latents)


def test_failures_are_told_and_not_yielded(finished: Batch) -> None:
    opened = open_batch(str(finished.folder), batches.pipe())
    assert [row.id for row in opened.rows() if row.error] == ["03.png"]
    with pytest.raises(KeyError, match=r"03\.png' failed: .*not a picture"):
        opened["03.png"]
    with pytest.raises(KeyError, match="is not in"):
        opened["06.png"]


def test_another_pipeline_is_refused(finished: Batch) -> None:
    from tests.helpers import tiny

    other = tiny.sd(tiny.euler_ancestral(), unet=tiny.unet(seed=1))
    with pytest.raises(archive.ArchiveError, match=r"00\.png in .* other weights in unet"):
        next(iter(open_batch(finished.folder, other)))


def test_what_is_there_of_a_batch_is_read(finished: Batch, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "part")
    part = Batch(tmp_path / "part", finished.settings)
    part.shards()[0].unlink()
    assert [identifier for identifier, _ in open_batch(part.folder, batches.pipe()).items()] == [
        "05.png",
        "below/01.png",
    ]


def test_an_embedded_model_is_loaded_by_itself(tmp_path: Path) -> None:
    source = batches.pictures(tmp_path / "pictures", 2)
    recipe = replace(batches.RECIPE, invert={"num_inference_steps": 1, "preset": "paper-sd"})
    batch = batches.batch(tmp_path / "out", source, recipe)
    fill_all(batch, ready(batch, renoise.models.load("emoji-turbo")))
    opened = open_batch(batch.folder)
    first, second = opened
    assert first.pipe is second.pipe
    assert first.record.model == "emoji-turbo"
