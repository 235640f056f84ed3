"""Records that grow by blocks, and the tables of reconstructions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from renoise.evaluation.reconstruction import COLUMNS, check
from renoise.evaluation.records import Records
from renoise.evaluation.tables import page


def block(method: str, *scores: float, side: int = 0) -> list[dict[str, str]]:
    """Rows of a method with these scores; all other columns are 1."""
    common = {"sampler": "S", "method": method, "family": "ReNoise", "passes": "8", "backward": "0", "seconds": "1"}
    rows = [
        common | {"number": str(i), "side_information": str(side)} | dict.fromkeys(COLUMNS, "1.0")
        for i in range(len(scores))
    ]
    return [row | {"psnr_round_trip": str(score)} for row, score in zip(rows, scores, strict=True)]


def test_records_keep_whole_blocks_and_know_which_are_outdated(tmp_path: Path) -> None:
    records = Records(tmp_path / "results/records.csv")
    assert not records.has("v1", "S", "plain reversal")
    records.add("v1", block("plain reversal", 10, 20))
    records.add("v1", block("ours", 30, 40))
    records.add("v2", block("ours", 50, 60))
    again = Records(records.path)
    assert again.has("v2", "S", "ours")
    assert not again.has("v1", "S", "ours")
    assert [row["psnr_round_trip"] for row in again.rows()] == ["10", "20", "50", "60"]
    assert sorted(path.name for path in records.path.parent.iterdir()) == ["records.csv", "records.json"]


def test_rows_of_a_long_run_wait_in_proportion_to_the_time_that_writing_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing takes 1 s by this clock, each block 3 s; so after the first, every seventh addition writes."""
    now = 0.0
    written: list[int] = []
    add = Records.add

    def slow(self: Records, depends: Any, rows: Any) -> None:
        nonlocal now
        now += 1.0
        written.append(len(rows))
        add(self, depends, rows)

    monkeypatch.setattr(Records, "add", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    kept = Records(tmp_path / "records.csv", ("method", "number"))

    def interrupted() -> None:
        nonlocal now
        with kept.pending() as write:
            for number in range(17):
                now += 3.0
                write({f"ours: {number}": "v"}, [{"method": "ours", "number": number}])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written == [1, 7, 7, 2], "the last ones are written when it ends, however it ends"
    assert [row["number"] for row in kept.rows()] == [str(number) for number in range(17)]
    assert kept.has("v", "ours", "16")


def test_pictures_below_their_own_plain_reversal_are_counted() -> None:
    rows = block("plain reversal", 10, 20) + block("ours", 15, 15)
    rows[-1]["finite"] = "0"
    assert check(rows) == (
        "1 of 4 results are not finite\nS, ours: 1 of 2 pictures are worse than their plain reversal"
    )


def test_tables_keep_side_information_apart() -> None:
    text = page(block("plain reversal", 10, 20) + block("ours", 30, 50, side=1))
    latents, side = text.split("### With side information in the noise")
    assert "| plain reversal | 8 | 15.0 [" in latents
    assert "| ours | 8 | 40.0 [" in side
    assert "ours" not in latents
