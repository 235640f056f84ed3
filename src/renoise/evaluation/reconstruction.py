"""Reconstruct pictures by a method, one row of scores per picture, whatever happens to some of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from renoise.core.loop import count_passes
from renoise.evaluation.methods import PLAIN, Method
from renoise.evaluation.records import Row
from renoise.evaluation.runs import Run, run
from renoise.evaluation.scores import FIDELITY, NOISE, Scores, failed, reconstructed
from renoise.images import ImageError, Source
from renoise.pipelines.adapter import Adapter

__all__ = ["COLUMNS", "Captioned", "check", "measured", "passes_of"]

COLUMNS = ("finite", *FIDELITY, *NOISE)

More = Callable[[Run, "Sequence[Captioned]"], Scores]


@dataclass(frozen=True)
class Captioned:
    """A picture with what it shows.

    Attributes:
        number: its place in the data set, which is the seed of its noise too.
        name: what it is called in records.
        image: the picture, as for `renoise.invert`.
        caption: its prompt.
    """

    number: int
    name: str
    image: Source
    caption: str


def measured(
    pipe: Any,
    pictures: Sequence[Captioned],
    method: Method,
    *,
    size: int | tuple[int, int] | None = None,
    more: More | None = None,
    columns: Sequence[str] = COLUMNS,
) -> list[Row]:
    """Rows of one batch.

    If a picture cannot be read, or a result is not finite, the pictures are run one by one, so that one failure does
    not affect the others.  The failed picture has `finite` 0, 0 dB, and the reason under `error`.

    Args:
        pipe: a pipeline, as for `renoise.invert`.
        pictures: the batch.
        method: how to invert.
        size: as for `renoise.invert`.
        more: further scores of a run and its pictures, such as of edits.
        columns: the columns of scores to record; a score that was not measured is empty.
    """
    started = time.perf_counter()
    error = ""
    try:
        images, captions = [picture.image for picture in pictures], [picture.caption for picture in pictures]
        numbers = [picture.number for picture in pictures]
        found = run(pipe, images, captions, numbers, method, size=size)
        seconds = (time.perf_counter() - started) / len(pictures)
        scores = reconstructed(found, found.reconstruct())
        if more is not None:
            scores |= more(found, pictures)
        passes, backward = found.inversion.passes, found.backward
        side = any(step.noise_travel is not None for step in found.inversion.trajectory.steps)
    except ValueError as problem:
        if not isinstance(problem, ImageError) and "not finite" not in str(problem):
            raise
        if len(pictures) > 1:
            keywords: dict[str, Any] = {"size": size, "more": more, "columns": columns}
            return [row for picture in pictures for row in measured(pipe, [picture], method, **keywords)]
        seconds, passes, backward, side, scores, error = 0.0, 0, 0, False, failed(1), str(problem)
    common = {"passes": passes, "backward": backward, "seconds": round(seconds, 4), "side_information": int(side)}
    return [
        {"number": picture.number, "picture": picture.name}
        | common
        | {name: round(float(scores[name][i]), 5) if name in scores else "" for name in columns}
        | {"error": error}
        for i, picture in enumerate(pictures)
    ]


def passes_of(pipe: Any, method: Method) -> int:
    """Forward passes per picture that an inversion by this method takes, of a pipeline with a plain schedule."""
    table = Adapter(pipe).schedule(method.fine or method.settings.num_inference_steps)
    return count_passes(table, method.settings)


def check(rows: Sequence[dict[str, str]]) -> str:
    """A text: how many pictures failed, and for each method how many are worse than with plain reversal."""
    lines = [f"{sum(float(row['finite']) == 0 for row in rows)} of {len(rows)} results are not finite"]
    floor = {(row["sampler"], row["number"]): row for row in rows if row["method"] == PLAIN}
    for sampler, method in dict.fromkeys((row["sampler"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["sampler"], row["method"]) == (sampler, method)]
        pairs = [(row, floor[sampler, row["number"]]) for row in mine if (sampler, row["number"]) in floor]
        worse = sum(float(own["psnr_round_trip"]) < float(base["psnr_round_trip"]) for own, base in pairs)
        if method != PLAIN and pairs:
            lines.append(f"{sampler}, {method}: {worse} of {len(pairs)} pictures are worse than their plain reversal")
    return "\n".join(lines)
