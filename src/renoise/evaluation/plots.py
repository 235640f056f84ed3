"""Plot of quality against passes, like figure 8 of the paper: one panel per sampler, one line per family of methods."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from renoise.evaluation.tables import DRAWS, Block, blocks, column, passes
from renoise.metrics import Summary, interval

__all__ = ["Look", "looks", "reconstruction"]

Look = tuple[str, str, bool]
"""Colour and marker of a family, and whether its line is thick and above the others."""

# Colours of Okabe and Ito, which are distinct with any colour vision, and a marker each for print without colour.
_KNOWN: dict[str, Look] = {
    "plain reversal": ("#999999", "s", False),
    "ReNoise": ("#000000", "o", False),
    "ReNoise, its options": ("#000000", "x", False),
}
_FURTHER: tuple[Look, ...] = (
    ("#D55E00", "o", True),
    ("#0072B2", "D", True),
    ("#009E73", "^", True),
    ("#CC79A7", "v", True),
    ("#E69F00", "P", True),
    ("#56B4E9", "<", True),
)


def looks(families: Sequence[str]) -> dict[str, Look]:
    """A look for each family: plain reversal and ReNoise in grey and black, as many presets as there are in colours."""
    presets = [family for family in families if family not in _KNOWN]
    return {family: _KNOWN.get(family) or _FURTHER[presets.index(family) % len(_FURTHER)] for family in families}


def reconstruction(rows: Sequence[dict[str, str]], path: Path, style: Mapping[str, Look]) -> None:
    """Plot PSNR to the auto-encoder's round trip: the mean with its 95 % interval, and the 5th percentile (dashed).

    Args:
        rows: records, with the columns of `renoise.evaluation.reconstruction`, sampler, method and family.
        path: PNG file to write.
        style: the look of each family, in the order of the legend.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    across = min(2, len(samplers))
    down = -(-len(samplers) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(5 * across, 4 * down + 1), squeeze=False)
    for axis, sampler in zip(axes.flat, samplers, strict=False):
        _panel(axis, blocks(rows, sampler), sampler, style)
    for axis in axes.flat[len(samplers) :]:
        axis.set_axis_off()
    entries = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = {family: entries[family] for family in style if family in entries}
    figure.legend(shown.values(), shown.keys(), loc="lower center", ncols=min(3, len(shown)), frameon=False)
    figure.tight_layout(rect=(0, 0.9 / (4 * down + 1), 1, 1))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _panel(axis: Any, methods: dict[str, Block], title: str, style: Mapping[str, Look]) -> None:
    for family, (colour, marker, ours) in style.items():
        mine = sorted((block for block in methods.values() if block[0]["family"] == family), key=passes)
        if not mine:
            continue
        x = [passes(block) for block in mine]
        scores = [column(block, "psnr_round_trip") for block in mine]
        mean, p5 = [statistics.mean(each) for each in scores], [Summary.of(each).p5 for each in scores]
        low, high = zip(*(interval(each, draws=DRAWS) for each in scores), strict=True)
        look = {"color": colour, "zorder": 3 if ours else 2}
        # the options of ReNoise are different methods at about the same cost, so no line joins them
        joined, dashed = ("none", "none") if family == "ReNoise, its options" else ("-", "--")
        axis.plot(x, mean, ls=joined, marker=marker, ms=6, lw=2.6 if ours else 1.3, label=family, **look)
        axis.plot(x, p5, ls=dashed, lw=1.3 if ours else 0.8, alpha=0.8, **look)
        if joined != "none":
            axis.fill_between(x, low, high, alpha=0.15, lw=0, color=colour)
    ticks = sorted({passes(block) for block in methods.values()})
    axis.set_xscale("log")
    axis.set_xlim(ticks[0] / 1.2, ticks[-1] * 1.2)  # margins, since 50 and 51 passes alone are too close for an axis
    axis.set_xticks(_apart(ticks), [str(tick) for tick in _apart(ticks)])
    axis.minorticks_off()
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("network passes of the inversion")
    axis.set_ylabel("dB to the auto-encoder's round trip")
    axis.grid(alpha=0.25)


def _apart(ticks: list[int]) -> list[int]:
    """The ticks that are far enough from the one before for a label on a logarithmic axis."""
    kept = ticks[:1]
    for tick in ticks[1:]:
        if tick >= 1.25 * kept[-1]:
            kept.append(tick)
    return kept
