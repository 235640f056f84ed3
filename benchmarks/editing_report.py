"""The editing benchmark as a page: a table for each sampler, a plot of hits against what stays, sheets of the worst."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from benchmarks import pictures
from renoise import images
from renoise.evaluation.tables import DRAWS, Block, column, markdown, with_interval
from renoise.figures import sheet
from renoise.metrics import interval

__all__ = ["folder_of", "write"]

BASE = "swap, default preset"
KINDS = ("concept", "style")
# Colours of Okabe and Ito, which are distinct with any colour vision, and a marker each for print without colour.
_LOOKS = {
    "prompt swap": ("#000000", "o"),
    "SDEdit": ("#E69F00", "P"),
    "edit-friendly": ("#009E73", "^"),
    "FlowEdit form": ("#CC79A7", "v"),
    "no source prompt": ("#56B4E9", "<"),
    "fading (null)": ("#999999", "s"),
    "ours, drawn": ("#0072B2", "D"),
    "ours, inverted": ("#D55E00", "o"),
}


def write(rows: Sequence[dict[str, str]], docs: Path, split: str, shown: Path) -> str:
    """Writes docs/editing-table.md and the pictures; returns the table.

    Args:
        rows: records, those of the default swap among them.
        docs: folder of the page.
        split: of the held-out pictures.
        shown: folder of the edited pictures.

    Raises:
        ValueError: there are no records of the default swap, against which all is compared.
    """
    if not any(row["method"] == BASE for row in rows):
        raise ValueError(f"there are no records of {BASE!r}, against which all is compared: measure it too")
    parts = [
        "# Editing: the table\n\nWritten by `python -m benchmarks.editing`. [What the columns mean](editing.md).\n"
    ]
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        blocks: dict[str, Block] = {}
        for row in rows:
            if row["sampler"] == sampler:
                blocks.setdefault(row["method"], []).append(row)
        seeds = len({row["seed"] for row in blocks[BASE]})
        edits = len(blocks[BASE]) // seeds
        parts.append(f"\n## {sampler}\n\n{edits} edits, half of them of the style; seeds: {seeds}.\n\n")
        parts.append(markdown([_line(name, block, blocks[BASE]) for name, block in blocks.items()]))
    page = "".join(parts)
    pictures_ = docs / "pictures"
    pictures_.mkdir(parents=True, exist_ok=True)
    (docs / "editing-table.md").write_text(page)
    _plot(rows, pictures_ / "editing.png")
    _worst(rows, split, shown, pictures_)
    return page


def _line(name: str, block: Block, base: Block) -> dict[str, str]:
    by_key = {_key(row): row for row in base}
    change = _by_picture(block, lambda row: float(row["hit"]) - float(by_key[_key(row)]["hit"]))
    low, high = interval(change, draws=DRAWS)
    same, base_same = (_by_picture(part, lambda row: float(row["same"])) for part in (block, base))
    return {
        "method": name,
        "passes": str(int(max(column(block, "passes")))),
        "hit, concept": with_interval(column(_of(block, "concept"), "hit"), 2),
        "hit, style": with_interval(column(_of(block, "style"), "hit"), 2),
        "hits against the default swap": f"{statistics.mean(change):+.3f} [{low:+.3f}, {high:+.3f}]",
        "top 5": f"{statistics.mean(column(_of(block, 'concept'), 'top5')):.2f}",
        "source gone": _both(block, "gone", 2),
        "concept kept": f"{statistics.mean(column(_of(block, 'style'), 'kept')):.2f}",
        "same": with_interval(same, 3),
        "same, times": f"{statistics.mean(same) / statistics.mean(base_same):.2f}",
        "background": _both(block, "background", 2),
        "PSNR": _both(block, "psnr", 1),
        "SSIM": _both(block, "ssim", 2),
    }


def _by_picture(block: Block, value: Callable[[dict[str, str]], float]) -> list[float]:
    """The mean of a value for each picture, since its edits and seeds are no independent draws."""
    found: dict[str, list[float]] = {}
    for row in block:
        found.setdefault(row["picture"], []).append(value(row))
    return [statistics.mean(values) for values in found.values()]


def _of(block: Block, kind: str) -> Block:
    return [row for row in block if row["kind"] == kind]


def _both(block: Block, name: str, digits: int) -> str:
    return " / ".join(f"{statistics.mean(column(_of(block, kind), name)):.{digits}f}" for kind in KINDS)


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return row["seed"], row["picture"], row["kind"]


def _plot(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Hits against `same`, a panel for each sampler, both with 95 % intervals."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    figure, axes = pyplot.subplots(1, len(samplers), figsize=(5.4 * len(samplers), 4.8), squeeze=False)
    for axis, sampler in zip(axes[0], samplers, strict=True):
        for family, (colour, marker) in _LOOKS.items():
            blocks: dict[str, Block] = {}
            for row in rows:
                if row["sampler"] == sampler and row["family"] == family:
                    blocks.setdefault(row["method"], []).append(row)
            points = []
            for block in blocks.values():
                same, hit = column(block, "same"), column(block, "hit")
                x, y = statistics.mean(same), statistics.mean(hit)
                points.append((x, y))
                spread = [
                    [[mean - low], [high - mean]]
                    for mean, (low, high) in ((x, interval(same, draws=DRAWS)), (y, interval(hit, draws=DRAWS)))
                ]
                axis.errorbar(x, y, spread[1], spread[0], color=colour, marker=marker, linewidth=0.8)
            if points:
                xs, ys = zip(*sorted(points), strict=True)
                axis.plot(
                    xs, ys, color=colour, marker=marker, linewidth=2 if family.startswith("ours") else 1, label=family
                )
        axis.set_title(sampler)
        axis.set_xlabel("share of the object's pixels that stay")
        axis.set_ylabel("edits that hit")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _worst(rows: Sequence[dict[str, str]], split: str, shown: Path, folder: Path, count: int = 12) -> None:
    """Sheets of the first sampler: the edits of each of our points that changed most of the picture, worst first."""
    first, held_out = rows[0]["sampler"], pictures.load(split)
    for dial in ("balanced", "faithful"):
        block = [row for row in rows if row["method"] == f"{dial}, inverted" and row["sampler"] == first]
        block = [row for row in block if row["seed"] == "0" and _file(row, shown).exists()]
        tiles: list[Image.Image] = []
        words: list[str] = []
        for row in sorted(block, key=lambda row: float(row["psnr"]))[:count]:
            source = images.to_pil(held_out.pixels[int(row["picture"])][None])[0]
            tiles += [source, images.open_image(_file(row, shown))]
            judged = "hit" if float(row["hit"]) else "miss"
            words += [row["from"], f"{row['to']}: {judged}, {float(row['psnr']):.1f} dB"]
        if tiles:
            sheet(tiles, words, columns=8).save(folder / f"editing-worst-{dial}.png")


def folder_of(shown: Path, sampler: str, seed: str, method: str) -> Path:
    """Where the edited pictures of a method are kept."""
    return shown.joinpath(*(part.replace(", ", "-").replace(" ", "-") for part in (sampler, seed, method)))


def _file(row: dict[str, str], shown: Path) -> Path:
    return folder_of(shown, row["sampler"], row["seed"], row["method"]) / f"{row['picture']}-{row['kind']}.png"
