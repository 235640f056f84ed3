"""PIE-Bench in both of its forms, and the small set of emoji in the published one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import renoise
from benchmarks import pie_set
from renoise.evaluation import pie
from renoise.evaluation.captions import read as read_captions
from renoise.evaluation.run_lengths import decode
from tests.helpers.pie_sets import RUNS, as_parquet, entry, image, published


def test_the_published_form_is_read_without_its_brackets(tmp_path: Path) -> None:
    cases = pie.read(published(tmp_path))
    assert [(case.id, case.type) for case in cases] == [("000", "0"), ("001", "1"), ("002", "1")]
    assert (cases[0].source_prompt, cases[0].target_prompt) == ("a cat on a mat", "a dog on a mat")
    assert cases[1].image().tobytes() == image(1).tobytes()
    assert np.array_equal(cases[0].mask(), decode(RUNS))


def test_parquet_files_give_the_same_cases(tmp_path: Path) -> None:
    own = pie.read(published(tmp_path / "published"))[:2]
    other = pie.read(as_parquet(tmp_path / "parquet"))
    assert [replace(case, stored=b"") for case in other] == [replace(case, stored=b"") for case in own]
    assert [case.image().tobytes() for case in other] == [case.image().tobytes() for case in own]


def test_one_folder_of_the_parquet_form_is_read_alone(tmp_path: Path) -> None:
    (case,) = pie.read(as_parquet(tmp_path) / "1_change_object_80")
    assert case.type == "1"


def test_types_choose(tmp_path: Path) -> None:
    assert [case.id for case in pie.read(published(tmp_path), ["1"])] == ["001", "002"]
    with pytest.raises(ValueError, match="no pictures of the types 9"):
        pie.read(tmp_path, ["9"])


def test_a_folder_without_the_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mapping_file\.json and annotation_images"):
        pie.read(tmp_path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"a": {"image_path": "a.png"}}, "the entry 'a' has no 'editing_type_id'"),
        ({"a": entry("a", "0", mask=[1, "x"])}, "the entry 'a': a mask is a list of numbers"),
        ({"../a": entry("a", "0")}, "signs other than letters"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, entries: object, reason: str) -> None:
    (tmp_path / "mapping_file.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=reason):
        pie.read(tmp_path)


def test_a_damaged_mapping_is_named(tmp_path: Path) -> None:
    (tmp_path / "mapping_file.json").write_text("{")
    with pytest.raises(ValueError, match=r"mapping_file\.json cannot be read"):
        pie.read(tmp_path)


def test_a_damaged_picture_is_named_when_it_is_opened(tmp_path: Path) -> None:
    (case,) = pie.read(as_parquet(tmp_path), ["0"])
    with pytest.raises(renoise.ImageError, match="the picture 000"):
        replace(case, stored=b"no picture").image()


def test_the_small_set_is_what_its_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["pie_set", "--output", str(tmp_path)])
    pie_set.main()
    written = json.loads((tmp_path / "mapping_file.json").read_text())
    assert written == json.loads((pie_set.FOLDER / "mapping_file.json").read_text())
    captions = [picture.caption for picture in read_captions(pie_set.FOLDER)]
    assert captions == [case.source_prompt for case in pie.read(pie_set.FOLDER)]


def test_the_small_set_has_24_pictures_of_512_pixels_in_less_than_a_megabyte() -> None:
    cases = pie.read(pie_set.FOLDER)
    assert len(cases) == 24
    assert {case.image().size for case in cases} == {(512, 512)}
    assert {case.type for case in cases} == set("01234569")
    assert all(case.source_prompt != case.target_prompt for case in cases)
    assert [case.type for case in cases if case.mask().all()] == ["9"] * 3, "styles are of the whole picture"
    assert sum(path.stat().st_size for path in pie_set.FOLDER.rglob("*") if path.is_file()) < 1_000_000
