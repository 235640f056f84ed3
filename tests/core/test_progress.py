"""Progress of work and its cancellation, by themselves."""

from __future__ import annotations

import pytest
import torch

from renoise.core.loop import drive, invert
from renoise.core.progress import Cancelled, Progress
from renoise.core.settings import Region, Settings
from tests.helpers.toys import TABLES, clean, noises, toy


def test_stage_total_and_passes_are_told() -> None:
    told: list[tuple[str, int, int]] = []
    progress = Progress(lambda p: told.append((p.stage, p.passes, p.total)))
    progress.begin("invert", 3)
    progress.advance(2)
    progress.advance(1)
    progress.end()
    progress.begin("generate", 1)
    assert told == [("invert", 0, 3), ("invert", 2, 3), ("invert", 3, 3), ("generate", 0, 1)]


def test_cancelled_work_ends_before_its_next_pass_and_stays_cancelled() -> None:
    asked: list[int] = []
    table = TABLES["euler"]()
    progress = Progress(lambda p: p.cancel() if p.passes == 2 else None)
    progress.begin("invert", 8)

    def denoise(query: object) -> torch.Tensor:
        asked.append(1)
        return toy(table)(query)  # type: ignore[arg-type]

    queries = invert(table, clean(), settings=Settings((Region(iterations=1),)), noises=noises(table))
    with pytest.raises(Cancelled, match="cancelled after 2 of 8 passes of the stage 'invert'"):
        drive(queries, denoise, progress.advance)
    assert len(asked) == 2
    with pytest.raises(Cancelled, match="0 of 5 passes"):
        progress.begin("generate", 5)
