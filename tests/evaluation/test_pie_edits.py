"""Edits of PIE-Bench by a tiny pipeline: rows, going on after an interruption, failures, and what is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renoise.core.settings import Region, Settings
from renoise.evaluation import pie, pie_edits
from renoise.evaluation.methods import Method
from renoise.evaluation.networks import Networks
from renoise.evaluation.pie_edits import Work, make, score
from renoise.evaluation.records import read
from renoise.images import open_image, to_tensor
from renoise.metrics import psnr
from tests.helpers import metric_networks, tiny
from tests.helpers.pie_sets import published

PLAIN = Method("plain", "plain", Settings((Region(),), num_inference_steps=2, guidance_scale=1.0))
RENOISE = Method("ReNoise K=1", "ReNoise", replace(PLAIN.settings, regions=(Region(iterations=1),)))


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.sd()


@pytest.fixture
def cases(tmp_path: Path) -> list[pie.Case]:
    return pie.read(published(tmp_path / "data"))


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The calls of a function of the module, which go on as before."""
    calls: list[Any] = []
    function: Callable[..., Any] = getattr(pie_edits, name)

    def count(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **keywords)

    monkeypatch.setattr(pie_edits, name, count)
    return calls


def test_every_method_and_picture_has_a_row_and_its_pictures(pipe: Any, cases: list[pie.Case], tmp_path: Path) -> None:
    told: list[int] = []
    cases, work = cases[1:], Work(tmp_path / "out", batch=2)
    make(pipe, cases, [PLAIN, RENOISE], work, told.append)
    rows = score(cases, ["plain", "ReNoise K=1"], work, Networks(structure=metric_networks.structure()))
    assert sum(told) == 4
    assert [(row["method"], row["id"]) for row in rows] == [
        *(("plain", "001"), ("plain", "002")),
        *(("ReNoise K=1", "001"), ("ReNoise K=1", "002")),
    ]
    assert [row["passes"] for row in rows] == ["2"] * 2 + ["4"] * 2
    assert all(row["psnr_background"] and row["structure_published"] and not row["clip_whole"] for row in rows)
    for row, case in zip(rows, cases, strict=False):
        again = open_image(work.picture("plain", case, "reconstruction"))
        source = case.image().resize(again.size)
        found = float(psnr(to_tensor([again]), to_tensor([source])))
        assert found == pytest.approx(float(row["psnr_image"]), abs=0.5), "the picture is the row's"
        assert open_image(work.picture("plain", case, "edit")).tobytes() != again.tobytes()


def test_batches_and_parts_of_the_data_give_the_same_pictures(pipe: Any, cases: list[pie.Case], tmp_path: Path) -> None:
    pipe = tiny.sd(tiny.euler_ancestral())
    one, many = Work(tmp_path / "one"), Work(tmp_path / "many", batch=3)
    make(pipe, cases[2:], [PLAIN], one)
    make(pipe, cases, [PLAIN], many)
    columns = ("id", "seed", "psnr_round_trip", "psnr_image")
    last = {name: many.made.rows()[2][name] for name in columns}
    assert {name: float(one.made.rows()[0][name]) for name in columns} == pytest.approx(
        {name: float(value) for name, value in last.items()}, abs=1e-3
    )
    assert len({row["seed"] for row in many.made.rows()}) == 3


def test_an_interrupted_run_goes_on(
    pipe: Any, cases: list[pie.Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, done = Work(tmp_path / "out"), []

    def interrupt(count: int) -> None:
        done.append(count)
        if sum(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(pipe, cases, [PLAIN], work, interrupt)
    before = work.made.rows()
    assert len(before) == 2
    times = [work.picture("plain", case, "edit").stat().st_mtime_ns for case in cases[:2]]
    told: list[int] = []
    calls = counted(monkeypatch, "run")
    make(pipe, cases, [PLAIN], work, told.append)
    assert len(calls) == 1
    assert told == [2, 1]
    assert work.made.rows()[:2] == before
    assert [work.picture("plain", case, "edit").stat().st_mtime_ns for case in cases[:2]] == times
    make(pipe, cases, [PLAIN], work)
    assert len(calls) == 1


def test_what_has_changed_is_made_again_and_nothing_else(
    pipe: Any, cases: list[pie.Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path / "out", batch=3)
    make(pipe, cases, [PLAIN], work)
    calls = counted(monkeypatch, "run")
    other = [replace(cases[0], target_prompt="a bird"), *cases[1:]]
    make(pipe, other, [PLAIN], work)
    assert len(calls) == 1
    make(pipe, other, [PLAIN], replace(work, seed=1))
    assert len(calls) == 1 + 1
    make(tiny.sd(unet=tiny.unet(7)), other, [PLAIN], replace(work, seed=1))
    assert len(calls) == 1 + 1 + 1
    assert len(work.made.rows()) == 3


def test_another_network_scores_again_without_inverting(
    pipe: Any, cases: list[pie.Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(tmp_path / "out")
    make(pipe, cases[:1], [PLAIN], work)
    inverted, scored = counted(monkeypatch, "run"), counted(monkeypatch, "_scored")
    assert not score(cases[:1], ["plain"], work, Networks())[0]["structure_published"]
    score(cases[:1], ["plain"], work, Networks())
    assert len(scored) == 1
    with_structure = Networks(structure=metric_networks.structure(), names=(("structure", "tiny"),))
    assert score(cases[:1], ["plain"], work, with_structure)[0]["structure_published"]
    assert len(scored) == 2
    assert not inverted


def test_a_picture_that_fails_costs_its_neighbours_nothing(pipe: Any, cases: list[pie.Case], tmp_path: Path) -> None:
    assert isinstance(cases[1].stored, Path)
    cases[1].stored.write_bytes(b"no picture")
    work = Work(tmp_path / "out", batch=3)
    make(pipe, cases, [PLAIN], work)
    rows = score(cases, ["plain"], work, Networks())
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert "001.png" in rows[1]["error"]
    assert [bool(row["psnr_background"]) for row in rows] == [True, False, True]


def test_settings_that_cannot_work_are_no_failure_of_a_picture(
    pipe: Any, cases: list[pie.Case], tmp_path: Path
) -> None:
    wrong = replace(PLAIN, settings=replace(PLAIN.settings, passes=1))
    with pytest.raises(ValueError, match="passes=1 for 2 steps"):
        make(pipe, cases, [wrong], Work(tmp_path / "out"))


def test_the_records_say_how_they_were_made(pipe: Any, cases: list[pie.Case], tmp_path: Path) -> None:
    work = Work(tmp_path / "out")
    make(pipe, cases[:1], [PLAIN], work)
    about = json.loads((tmp_path / "out/made.json").read_text())
    assert about["machine"]["torch"]
    assert list(about["blocks"]) == ["plain: 000"]
    assert read(tmp_path / "out/made.csv") == work.made.rows()
