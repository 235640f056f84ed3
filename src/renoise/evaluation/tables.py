"""Records of reconstructions as Markdown tables.

Each sampler has a table of the methods that need latents only, and one of the methods whose noise was fitted to the
picture (side information).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from renoise.metrics import Summary, interval

__all__ = ["DRAWS", "Block", "blocks", "column", "markdown", "mean", "page", "passes", "with_interval"]

Block = list[dict[str, str]]  # the rows of one sampler and method
DRAWS = 1000  # resamples of the bootstrap intervals


def blocks(rows: Sequence[dict[str, str]], sampler: str) -> dict[str, Block]:
    """Rows of each method of a sampler, ordered by family and then by passes."""
    families = list(dict.fromkeys(row["family"] for row in rows))
    mine: dict[str, Block] = {}
    for row in rows:
        if row["sampler"] == sampler:
            mine.setdefault(row["method"], []).append(row)
    order = sorted(mine, key=lambda method: (families.index(mine[method][0]["family"]), passes(mine[method])))
    return {method: mine[method] for method in order}


def column(block: Block, name: str) -> list[float]:
    """The numbers of a method in one column, without the rows in which it is empty."""
    return [float(row[name]) for row in block if row.get(name, "") != ""]


def passes(block: Block) -> int:
    """Forward passes per picture.  Pictures that failed have 0 passes and do not count."""
    return int(max(column(block, "passes")))


def markdown(lines: Sequence[dict[str, str]]) -> str:
    """A Markdown table of lines with the same keys, which become its head."""
    keys = list(lines[0])
    body = [list(line.values()) for line in lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [keys, ["---"] * len(keys), *body])


def page(rows: Sequence[dict[str, str]], more: Callable[[dict[str, Block]], str] | None = None) -> str:
    """The tables of all samplers, as one Markdown text.

    Args:
        rows: records, with the columns of `renoise.evaluation.reconstruction`, sampler, method and family.
        more: what to write below the tables of a sampler, given its blocks.
    """
    parts = []
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        mine = blocks(rows, sampler)
        parts.append(f"\n## {sampler}\n")
        kinds = (("Latents only", 0), ("With side information in the noise", 1))
        for title, side in kinds:
            found = {name: block for name, block in mine.items() if max(column(block, "side_information")) == side}
            if found:
                parts.append(f"\n### {title}\n\n" + markdown([_fidelity(name, block) for name, block in found.items()]))
        if more is not None:
            parts.append(more(mine))
    return "".join(parts)


def _fidelity(name: str, block: Block) -> dict[str, str]:
    trip, image = column(block, "psnr_round_trip"), column(block, "psnr_image")
    summary, of_image = Summary.of(trip), Summary.of(image)
    backward = int(max(column(block, "backward")))
    return {
        "method": name,
        "passes": str(passes(block)) + (f" + {backward} backward" if backward else ""),
        "dB to round trip": with_interval(trip),
        "median": f"{summary.median:.1f}",
        "5th": f"{summary.p5:.1f}",
        "worst": f"{summary.worst:.1f}",
        "dB to picture": with_interval(image),
        "5th ": f"{of_image.p5:.1f}",
        "ceiling": mean(block, "ceiling", 1),
        "SSIM": mean(block, "ssim", 3),
        "s/picture": mean(block, "seconds", 2),
        "std z_T": mean(block, "z_std", 2),
        "corr z_T": mean(block, "z_neighbour", 2),
        "noise std": mean(block, "noise_std", 3),
        "furthest": mean(block, "noise_std_furthest", 3),
        "noise corr": mean(block, "noise_neighbour", 3),
        "noise moved": mean(block, "noise_travel", 2),
    }


def mean(block: Block, name: str, digits: int) -> str:
    """The mean of a column, or nothing if it is empty."""
    values = column(block, name)
    return f"{statistics.mean(values):.{digits}f}" if values else ""


def with_interval(values: Sequence[float], digits: int = 1) -> str:
    """The mean with its 95 % bootstrap interval, such as "41.3 [40.1, 42.4]"."""
    low, high = interval(values, draws=DRAWS) if not any(map(math.isinf, values)) else (min(values), max(values))
    return f"{statistics.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
