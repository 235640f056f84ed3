"""Tables in the field's printed scales, what they leave out, and the order of a contact sheet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from renoise.evaluation import pie
from renoise.evaluation.pie_edits import Work, _save
from renoise.evaluation.pie_metrics import COLUMNS
from renoise.evaluation.pie_summary import PRINTED, contact_sheet, left_out, page, ranked
from renoise.evaluation.scores import FIDELITY
from tests.helpers.pie_sets import image, published


def row(name: str, kind: str = "1", method: str = "fast", **values: object) -> dict[str, str]:
    """A row in which everything is 1 but what is given."""
    common = {"method": method, "id": name, "type": kind, "passes": "8", "seconds": "1", "side_information": "0"}
    ones = dict.fromkeys((*FIDELITY, *COLUMNS), "1")
    return common | ones | {"error": ""} | {key: str(value) for key, value in values.items()}


def test_every_column_is_printed() -> None:
    assert set(PRINTED) == set(COLUMNS)


def test_numbers_are_printed_in_the_scales_of_the_field() -> None:
    values: dict[str, Any] = {
        "structure_published": 0.0123,
        "structure_corrected": 0.0045,
        "psnr_background": 27.5,
        "lpips_background": 0.054,
        "mse_background": 0.0032,
        "ssim_background": 0.845,
        "clip_whole": 25.01,
        "clip_edited": 22.11,
    }
    text = page([row("a", **values)])
    head, line = (part.strip("| ").split(" | ") for part in text.split("## Edits\n\n")[1].splitlines()[:3:2])
    printed = {title: cell.split(" ")[0] for title, cell in zip(head, line, strict=True)}
    assert printed["structure, as published x1e3 (low)"] == "12.30"
    assert printed["structure, corrected x1e3 (low)"] == "4.50"
    assert printed["background PSNR (high)"] == "27.50"
    assert printed["background LPIPS x1e3 (low)"] == "54.00"
    assert printed["background MSE x1e4 (low)"] == "32.00"
    assert printed["background SSIM x1e2 (high)"] == "84.50"
    assert (printed["CLIP whole (high)"], printed["CLIP edited (high)"]) == ("25.01", "22.11")


def test_types_have_lines_of_their_own_with_intervals() -> None:
    rows = [row("a", "1", psnr_background=10), row("b", "1", psnr_background=30), row("c", "9", psnr_background=20)]
    lines = page(rows).split("## By type: fast")[1].splitlines()
    assert lines[4].startswith("| 1 change object | 2 | ")
    assert "20.00 [10.00, 30.00]" in lines[4]
    assert lines[5].startswith("| 9 change style | 1 | ")


def test_metrics_without_numbers_have_no_column() -> None:
    text = page([row("a", clip_whole="", clip_edited="", clip_source="", lpips_background="")])
    assert "CLIP" not in text
    assert "LPIPS" not in text


def test_what_does_not_count_is_counted() -> None:
    nothing = dict.fromkeys(("psnr_background", "ssim_background", "mse_background", "lpips_background"), "")
    failed = dict.fromkeys((*FIDELITY, *COLUMNS, "passes", "seconds", "side_information"), "")
    rows = [
        row("a", psnr_background=20),
        row("b", psnr_background=math.inf, mse_background=0),
        row("c", **nothing),
        row("d", **failed, error="damaged"),
    ]
    (said,) = left_out(rows)
    assert said == (
        "fast: 1 of 3 pictures have no background to compare; 1 have a background that did not change at all, whose "
        "PSNR is infinite and not in the mean; 1 failed (d: damaged)"
    )
    text = page(rows, ["CLIP similarity is left out: why"])
    assert "20.00 [20.00, 20.00]" in text.split("## Edits")[1]
    assert "* CLIP similarity is left out: why\n" in text
    assert "| fast | 3 | 1 | 8 | no |" in text


def test_a_method_of_which_everything_failed_is_still_in_the_tables() -> None:
    failed = dict.fromkeys((*FIDELITY, *COLUMNS, "passes", "seconds", "side_information"), "")
    text = page([row("a", **failed, error="damaged"), row("a", method="slow")])
    assert "| fast | 0 | 1 |  |" in text
    assert "| slow | 1 | 0 | 8 |" in text


def test_edits_are_ranked_by_background_and_by_fit() -> None:
    rows = [
        row("a", psnr_background=10, clip_edited=10),
        row("b", psnr_background=30, clip_edited=30),
        row("c", psnr_background=20, clip_edited=20),
        row("d", error="damaged"),
    ]
    assert [each["id"] for each in ranked(rows)] == ["b", "c", "a", "d"]
    kept = [row("a", psnr_background=math.inf), row("b", psnr_background=50), row("c", psnr_background="")]
    kept = [{**each, "clip_edited": "", "judge_whole": ""} for each in kept]
    assert ranked(kept)[0]["id"] == "a"


def test_a_contact_sheet_shows_best_median_and_worst_and_no_picture_twice(tmp_path: Path) -> None:
    cases = pie.read(published(tmp_path / "data", kinds=["1"] * 7))
    work = Work(tmp_path / "out")
    for number, case in enumerate(cases):
        for kind in ("reconstruction", "edit"):
            _save(work.picture("fast", case, kind), image(number))
    rows = [row(case.id, psnr_background=number) for number, case in enumerate(cases)]
    wide, low = contact_sheet(rows, cases, work), contact_sheet(rows[:2], cases, work)
    assert wide.width == low.width
    assert wide.height > 2.5 * low.height, "three rows, of two pictures each"
    assert np.asarray(contact_sheet(rows[:1], cases, work)).std() > 0
