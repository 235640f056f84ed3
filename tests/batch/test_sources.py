"""Where pictures come from: the same entries from every kind of source, and errors before any work."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from renoise.batch.entries import Entry, seed_of
from renoise.batch.sources import Defaults, entries
from renoise.images import ImageError
from tests.helpers import batches

TABLE: list[dict[str, Any]] = [
    {"picture": "00.png", "prompt": "a cat", "edit_prompts": ["a dog", "a hen"], "seed": 5, "id": "first"},
    {"picture": "below/01.png", "prompt": "a cow"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return batches.pictures(tmp_path / "pictures", 3)


def found(source: Path, **defaults: Any) -> list[Entry]:
    return list(entries(source, Defaults(**defaults)))


def test_a_folder_with_all_below(folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    made = found(folder, prompt="a cat", edits=("a dog",), seed=3)
    assert [entry.id for entry in made] == ["00.png", "02.png", "below/01.png"]
    assert {(entry.prompt, entry.edits) for entry in made} == {("a cat", ("a dog",))}
    assert [entry.open().size for entry in made] == [batches.picture(number).size for number in (0, 2, 1)]
    assert all(Path(entry.path).is_absolute() for entry in made)


def test_seeds_follow_from_ids_alone(folder: Path) -> None:
    before = {entry.id: entry.seed for entry in found(folder, prompt="a cat")}
    (folder / "00.png").unlink()
    after = {entry.id: entry.seed for entry in found(folder, prompt="another")}
    assert after == {one: before[one] for one in after}
    assert len({*before.values(), seed_of("00.png", 1)}) == 4  # and from --seed
    assert all(0 <= seed < 2**48 for seed in before.values())


def test_a_table_says_the_same_in_every_form(folder: Path) -> None:
    batches.jsonl(folder / "table.jsonl", *TABLE)
    pq.write_table(pa.Table.from_pylist(TABLE), folder / "table.parquet")
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, TABLE[0].keys())
        writer.writeheader()
        writer.writerows([{**TABLE[0], "edit_prompts": json.dumps(TABLE[0]["edit_prompts"])}, TABLE[1]])
    made = [found(folder / f"table.{kind}", edits=("a pig",)) for kind in ("jsonl", "parquet", "csv")]
    assert made[0] == made[1] == made[2]
    first, second = made[0]
    assert (first.id, first.prompt, first.edits, first.seed) == ("first", "a cat", ("a dog", "a hen"), 5)
    assert (second.id, second.edits, second.seed) == ("below/01.png", ("a pig",), seed_of("below/01.png", 0))
    assert second.open().size == batches.picture(1).size


def test_captions_beside_pictures(folder: Path) -> None:
    batches.jsonl(folder / "metadata.jsonl", {"file_name": "02.png", "text": "a hen"})
    (entry,) = found(folder, prompt="a cat")
    assert (entry.id, entry.prompt) == ("02.png", "a hen")


def test_tars_are_read_where_the_pictures_lie(tmp_path: Path) -> None:
    told = json.dumps({"prompt": "a cow", "edit_prompts": ["a pig"], "seed": 9}).encode()
    batches.tar(tmp_path / "b.tar", {"x/2": {"png": batches.png(2), "txt": b"a hen\n"}})
    batches.tar(tmp_path / "a.tar", {"0": {"json": told, "png": batches.png(0)}, "1": {"cls": b"7", "txt": b"nothing"}})
    first, second = found(tmp_path)
    assert (first.id, first.prompt, first.edits, first.seed) == ("0", "a cow", ("a pig",), 9)
    assert (second.id, second.prompt) == ("x/2", "a hen")
    for number, entry in ((0, first), (2, second)):
        assert entry.open().tobytes() == batches.picture(number).tobytes()


def test_damage_in_a_tar_is_an_image_error_that_names_it(tmp_path: Path) -> None:
    batches.tar(tmp_path / "a.tar", {"0": {"png": b"no picture", "txt": b"a cat"}})
    (entry,) = found(tmp_path / "a.tar")
    with pytest.raises(ImageError, match=r"0 in .*a\.tar is not a picture"):
        entry.open()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"picture": "00.png"}], "nothing says what 00.png"),
        ([{"prompt": "a cat"}], "row 1 of .* names no picture"),
        ([{"picture": "00.png", "prompt": "a cat", "seed": -1}], "row 1 of .*seed=-1"),
        ([{"picture": "00.png", "prompt": "a cat", "seed": 2**63}], "row 1 of .*seed="),
        ([{"picture": "00.png", "prompt": 7}], "row 1 of .*prompt"),
        ([], "holds no picture"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(folder: Path, table: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        found(batches.jsonl(folder / "table.jsonl", *table))


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a cat")
    (tmp_path / "lines.jsonl").write_text("{}\n{")
    (tmp_path / "packed.tar").write_bytes(b"\x1f\x8b packed")
    for name, message in (
        ("nowhere", "does not exist"),
        ("notes.txt", "neither a folder nor one of"),
        ("lines.jsonl", "names no picture"),
        ("packed.tar", "unpacked"),
    ):
        with pytest.raises(ValueError, match=message):
            found(tmp_path / name, prompt="a cat")
