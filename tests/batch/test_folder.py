"""The folder of a batch: every picture once, whatever is killed; and nobody goes on with something else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from renoise.batch import folder as folders
from renoise.batch.arrow import arrow
from renoise.batch.entries import Entry
from renoise.batch.folder import fill_all, opened
from renoise.batch.recipe import Recipe
from renoise.batch.rows import LIGHT, Row, failed
from renoise.batch.shards import light_schema
from renoise.batch.sources import Defaults
from renoise.batch.summary import Meter, Summary
from renoise.batch.work import work
from renoise.batch.worker import ready
from tests.helpers import batches, killed, tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return batches.pictures(tmp_path / "pictures", 10)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shards").iterdir())


# --- every picture once ---


@pytest.mark.slow
def test_killed_at_every_point_and_started_again(source: Path, tmp_path: Path) -> None:
    whole = batches.batch(tmp_path / "whole", source)
    fill_all(whole, killed.work)
    whole.finish()
    command = [sys.executable, "-m", "tests.helpers.killed", str(tmp_path / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 16
    for number in range(16):
        again = opened(tmp_path / "out" / f"{number}")
        assert not again.missing()
        assert names(again.folder) == names(whole.folder)
        for name in [*(f"shards/{name}" for name in names(whole.folder)), "manifest.parquet"]:
            assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_batch_that_was_broken_off_has_the_numbers_of_a_whole_one(source: Path, tmp_path: Path) -> None:
    pipe = batches.pipe()
    whole, broken = batches.batch(tmp_path / "whole", source), batches.batch(tmp_path / "broken", source)
    fill_all(whole, partial(work, pipe, whole.recipe))
    told: list[Row] = []

    def stop(rows: Sequence[Row]) -> None:
        told.extend(rows)
        if len(told) > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_all(broken, partial(work, pipe, broken.recipe), stop)
    assert broken.missing() == [1, 2]
    assert broken.done() == 4
    again = batches.batch(tmp_path / "broken", source)
    fill_all(again, partial(work, batches.pipe(), again.recipe))
    assert [batches.numbers(row) for row in batches.rows(again)] == [
        batches.numbers(row) for row in batches.rows(whole)
    ]
    assert sorted(row.id for row in batches.rows(again)) == sorted(
        f"{'below/' * (n == 1)}{n:02d}.png" for n in range(10)
    )


def test_how_far_the_numbers_depend_on_what_is_in_the_batch(source: Path, tmp_path: Path) -> None:
    """The seed follows from the id, so only the rounding of the network differs."""
    pipe = batches.pipe()
    found = {}
    for size in (1, 5):
        batch = batches.batch(tmp_path / f"{size}", source, replace(batches.RECIPE, batch_size=size), shard_size=5)
        fill_all(batch, partial(work, pipe, batch.recipe))
        found[size] = {row.id: row.fidelity for row in batches.rows(batch)}
    assert found[1] == pytest.approx(found[5], abs=1e-3)


def test_a_shard_that_fails_leaves_nothing(source: Path, tmp_path: Path) -> None:
    batch = batches.batch(tmp_path / "out", source)

    def fail(entries: Sequence[Entry]) -> list[Row]:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fill_all(batch, fail)
    assert names(batch.folder) == []
    with pytest.raises(ValueError, match="lacks 3 shards"):
        batch.finish()


# --- the same batch, or another folder ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": replace(batches.RECIPE, invert={**batches.RECIPE.invert, "passes": 5})}, "passes=3 and not 5"),
        ({"recipe": replace(batches.RECIPE, edit={"guidance_scale": 2})}, "guidance_scale=None and not 2"),
        ({"recipe": replace(batches.RECIPE, latents="float16")}, "latents='float32' and not 'float16'"),
        ({"recipe": replace(batches.RECIPE, batch_size=4)}, "batch_size=3 and not 4"),
        ({"defaults": Defaults("a cat", ())}, r"edits=\['a dog'\] and not \[\]"),
        ({"defaults": Defaults("a cat", ("a dog",), seed=1)}, "seed=0 and not 1"),
        ({"kind": "webdataset"}, "shards='parquet' and not 'webdataset'"),
        ({"shard_size": 5}, "shard_size=4 and not 5"),
        ({"pipeline": {"model": "emoji"}}, "model=None and not 'emoji'"),
    ],
)
def test_other_settings_are_refused_by_name(source: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    batch = batches.batch(tmp_path / "out", source)
    asked: dict[str, Any] = {"defaults": batches.DEFAULTS, "recipe": batches.RECIPE, "shard_size": 4, **change}
    with pytest.raises(ValueError, match=message):
        folders.make(tmp_path / "out", source, **asked)
    assert batches.batch(tmp_path / "out", source).settings == batch.settings


def test_a_source_that_has_changed_is_refused(source: Path, tmp_path: Path) -> None:
    batches.batch(tmp_path / "out", source)
    batches.picture(11).save(source / "11.png")
    with pytest.raises(ValueError, match="it had 10 pictures and has 11"):
        batches.batch(tmp_path / "out", source)


def test_a_folder_with_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds \S+, and no batch"):
        batches.batch(source, source)
    with pytest.raises(ValueError, match="holds no batch"):
        opened(source)


def test_ids_must_differ(source: Path, tmp_path: Path) -> None:
    row = {"picture": "00.png", "prompt": "a cat"}
    table = batches.jsonl(source / "table.jsonl", row, {**row, "id": "other"}, row)
    with pytest.raises(ValueError, match=r"two pictures have the id '00\.png'"):
        batches.batch(tmp_path / "out", table)
    assert not (tmp_path / "out").exists()


def test_all_workers_have_the_same_pipeline(source: Path, tmp_path: Path) -> None:
    batch = batches.batch(tmp_path / "out", source, Recipe({"num_inference_steps": 2, "size": 32}))
    ready(batch, batches.pipe())
    ready(batch, batches.pipe())
    with pytest.raises(ValueError, match="other weights in unet"):
        ready(batch, tiny.sd(tiny.euler_ancestral(), unet=tiny.unet(seed=1)))
    with pytest.raises(ValueError, match="made with the scheduler EulerAncestral"):
        ready(batch, tiny.sd(tiny.ddim()))
    with pytest.raises(ValueError, match="made with the scheduler config"):
        ready(batch, tiny.sd(tiny.euler_ancestral(beta_end=0.013)))


# --- manifest, summary, progress ---


def test_the_manifest_has_a_row_a_picture(source: Path, tmp_path: Path) -> None:
    batch = batches.batch(tmp_path / "out", source)
    asked = [entry for number in range(3) for entry in batch.entries(number)]
    fill_all(
        batch, lambda entries: [failed(one, OSError("gone")) if one is asked[5] else one_row(one) for one in entries]
    )
    batch.finish()
    table = pq.read_table(batch.folder / "manifest.parquet")
    assert table.column_names == [*LIGHT, "shard", "row"]
    frame = pd.read_parquet(batch.folder / "manifest.parquet")
    assert list(frame.id) == [entry.id for entry in asked]
    assert list(frame.row) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    for shard, row, identifier in zip(frame.shard, frame.row, frame.id, strict=True):
        assert pq.read_table(batch.folder / "shards" / shard)["id"][row].as_py() == identifier


def one_row(entry: Entry) -> Row:
    return killed.work([entry])[0]


def test_a_summary_counts_failures_and_ranks_db() -> None:

    good = [{"id": f"{n}", "fidelity": float(n), "passes": 4, "seconds": 0.5} for n in range(1, 101)]
    bad = [{"id": "x", "error": "gone"}, {"id": "y", "error": "gone"}, {"id": "z", "error": "torn"}]
    summary = Summary()
    for rows in (good[:40], bad, good[40:]):
        summary.add(arrow().Table.from_pylist(rows, schema=light_schema()))
    assert summary.percentiles() == {5: 5.0, 25: 25.0, 50: 50.0, 75: 75.0, 95: 95.0}
    lines = "\n".join(summary.lines())
    assert "103 pictures: 100 done, 3 failed" in lines
    assert "4.0 passes and 0.500 s of a worker for each" in lines
    assert "failed, 2: gone (first: x)" in lines
    assert "mean 50.5" in lines


def test_progress_has_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = Meter(1000, 100)
    assert meter.line() == "100 of 1,000 pictures (10%)"
    now[0] += 50
    meter.add(100, 2)
    assert meter.line() == "200 of 1,000 pictures (20%), 2.00 a second, 7 min left, 2 failed"


def test_settings_are_plain_to_read(source: Path, tmp_path: Path) -> None:
    batch = batches.batch(tmp_path / "out", source)
    told = json.loads((batch.folder / "batch.json").read_text())
    assert told["pictures"] == batch.pictures == 10
    assert told["recipe"]["invert"]["preset"] == "fast"
    assert batch.recipe == batches.RECIPE
