"""Tables and contact sheets of edits on PIE-Bench, in the scales in which the field prints its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from renoise.evaluation.pie import TYPES, Case
from renoise.evaluation.pie_edits import Work
from renoise.evaluation.tables import Block, column, markdown, with_interval
from renoise.figures import sheet
from renoise.images import open_image
from renoise.metrics import Summary

__all__ = ["contact_sheet", "left_out", "page", "ranked"]


@dataclass(frozen=True)
class Printed:
    """How a column is printed.

    Attributes:
        title: head of the column; an arrow says which way is better.
        scale: what the recorded number is multiplied by.
        digits: after the point.
    """

    title: str
    scale: float = 1
    digits: int = 2


PRINTED = {
    "structure_published": Printed("structure, as published x1e3 (low)", 1e3),
    "structure_corrected": Printed("structure, corrected x1e3 (low)", 1e3),
    "psnr_background": Printed("background PSNR (high)"),
    "lpips_background": Printed("background LPIPS x1e3 (low)", 1e3),
    "mse_background": Printed("background MSE x1e4 (low)", 1e4),
    "ssim_background": Printed("background SSIM x1e2 (high)", 1e2),
    "clip_source": Printed("CLIP source"),
    "clip_whole": Printed("CLIP whole (high)"),
    "clip_edited": Printed("CLIP edited (high)"),
    "judge_source": Printed("judge source"),
    "judge_whole": Printed("judge whole (high)"),
    "judge_hit": Printed("judge prefers the new prompt (high)"),
}
_TITLES = ("passes", "side information", "dB to round trip", "5th", "worst", "dB to picture", "ceiling", "s/picture")
SHOWN = 2  # pictures of each of best, median and worst on a contact sheet


def page(rows: Sequence[dict[str, str]], notes: Sequence[str] = ()) -> str:
    """All tables as one Markdown text: inversions, all edits, edits by type for each method, and what was left out.

    Means stand with their 95 % bootstrap intervals.

    Args:
        rows: of ``pie.csv``.
        notes: sentences to end with, such as about metrics that are left out.
    """
    blocks = {method: [row for row in rows if row["method"] == method] for method in _methods(rows)}
    parts = ["\n## Inversions\n\n" + markdown([_inversion(name, block) for name, block in blocks.items()])]
    shown = [name for name in PRINTED if column(list(rows), name)]
    lines = [{"method": name} | _line(block, shown) for name, block in blocks.items()]
    parts.append("\n## Edits\n\n" + markdown(lines))
    for name, block in blocks.items():
        kinds = sorted({row["type"] for row in block})
        lines = [
            {"type": f"{kind} {TYPES.get(kind, '')}"} | _line([row for row in block if row["type"] == kind], shown)
            for kind in kinds
        ]
        parts.append(f"\n## By type: {name}\n\n" + markdown(lines))
    said = [*left_out(rows), *notes]
    parts.append("\n## What is left out\n\n" + "".join(f"* {sentence}\n" for sentence in said))
    return "".join(parts)


def left_out(rows: Sequence[dict[str, str]]) -> list[str]:
    """A sentence for each method on the pictures that do not count: nothing to compare, nothing changed, failed."""
    return [_left_out(name, [row for row in rows if row["method"] == name]) for name in _methods(rows)]


def ranked(block: Block) -> list[dict[str, str]]:
    """The rows of a method from the best to the worst edit, failed ones last.

    A row's place is the mean of two: among all by how well the background is kept (PSNR), and by how well the picture
    fits the new prompt (CLIP of the edited region, or the judge).  Without one of the two it is the other's.
    """
    made = [row for row in block if not row["error"]]
    places = np.zeros(len(made))
    fit = next((name for name in ("clip_edited", "judge_whole") if column(made, name)), None)
    for name in filter(None, ("psnr_background" if column(made, "psnr_background") else None, fit)):
        values = np.array([min(float(row[name]), 1e9) if row[name] else math.nan for row in made])
        values[np.isnan(values)] = np.nanmedian(values)  # nothing to compare is neither good nor bad
        places += np.argsort(np.argsort(-values, kind="stable"), kind="stable")
    order = np.argsort(places, kind="stable")
    return [made[i] for i in order] + [row for row in block if row["error"]]


def contact_sheet(block: Block, cases: Sequence[Case], work: Work) -> Image.Image:
    """Source, mask, reconstruction and edit of the best, the median and the worst pictures of a method."""
    known = {case.id: case for case in cases}
    made = [row for row in ranked(block) if not row["error"]]
    if not made:
        raise ValueError(f"no picture of {block[0]['method']} could be edited: {block[0]['error']}")
    worst = made[SHOWN:][-SHOWN:]  # fewer than enough pictures are shown once each
    between = made[SHOWN : len(made) - len(worst)]
    middle = max(0, (len(between) - SHOWN) // 2)
    chosen = {"best": made[:SHOWN], "median": between[middle : middle + SHOWN], "worst": worst}
    images, captions = [], []
    for title, rows in chosen.items():
        for row in rows:
            case = known[row["id"]]
            source = case.image()
            images += [source, _masked(source, case)]
            images += [open_image(work.picture(row["method"], case, kind)) for kind in ("reconstruction", "edit")]
            kept = f"{float(row['psnr_background']):.1f} dB background" if row["psnr_background"] else "no background"
            trip = f"reconstruction, {float(row['psnr_image']):.1f} dB"
            captions += [f"{title}: {case.source_prompt}", f"{case.id}: to be edited", trip]
            captions += [f"{case.target_prompt}; {kept}"]
    return sheet(images, captions, columns=4 * SHOWN, side=160)


def _methods(rows: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _inversion(name: str, block: Block) -> dict[str, str]:
    made = [row for row in block if not row["error"]]
    if not made:
        titles = (
            "passes",
            "side information",
            "dB to round trip",
            "5th",
            "worst",
            "dB to picture",
            "ceiling",
            "s/picture",
        )
        return {"method": name, "pictures": "0", "failed": str(len(block))} | dict.fromkeys(titles, "")
    trip, image = column(made, "psnr_round_trip"), column(made, "psnr_image")
    low, ceiling = Summary.of(trip), column(made, "ceiling")
    return {
        "method": name,
        "pictures": str(len(made)),
        "failed": str(len(block) - len(made)),
        "passes": f"{max(column(made, 'passes')):.0f}",
        "side information": "yes" if max(column(made, "side_information")) else "no",
        "dB to round trip": with_interval(trip),
        "5th": f"{low.p5:.1f}",
        "worst": f"{low.worst:.1f}",
        "dB to picture": with_interval(image),
        "ceiling": f"{sum(ceiling) / len(ceiling):.1f}",
        "s/picture": f"{sum(column(made, 'seconds')) / len(made):.2f}",
    }


def _line(block: Block, shown: Sequence[str]) -> dict[str, str]:
    cells = {"pictures": str(sum(not row["error"] for row in block))}
    for name in shown:
        how = PRINTED[name]
        values = [value * how.scale for value in column(block, name) if math.isfinite(value)]
        cells[how.title] = with_interval(values, how.digits) if values else ""
    return cells


def _left_out(name: str, block: Block) -> str:
    """A sentence on the rows of a method that do not count."""
    made = [row for row in block if not row["error"]]
    nothing = sum(row["mse_background"] == "" for row in made)
    same = sum(math.isinf(value) for value in column(made, "psnr_background"))
    failures = [row for row in block if row["error"]]
    text = (
        f"{name}: {nothing} of {len(made)} pictures have no background to compare; {same} have a background that did "
        f"not change at all, whose PSNR is infinite and not in the mean; {len(failures)} failed"
    )
    return text + (f" ({failures[0]['id']}: {failures[0]['error']})" if failures else "")


def _masked(source: Image.Image, case: Case) -> Image.Image:
    """A picture whose part that is not to be edited is darkened."""
    mask = Image.fromarray(case.mask()).resize(source.size)
    return Image.composite(source, source.point(lambda value: value // 3), mask)
