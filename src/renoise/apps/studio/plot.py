"""The residual of every step as a drawing (SVG) in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from renoise.apps.studio.words import Scores

__all__ = ["residuals"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 156, 44, 10, 10, 36
_TINIEST = 1e-6


def residuals(scores: Scores) -> str:
    """How far off its equation the first and the last evaluated point of every step was, on a logarithmic scale."""
    rows = [[max(value, _TINIEST) for value in row if math.isfinite(value)] for row in scores.residuals]
    told = [(time, row) for time, row in zip(scores.timesteps, rows, strict=True) if row]
    if not told:
        return ""
    everything = [math.log10(value) for _, row in told for value in row]
    low, high = math.floor(min(everything)), math.ceil(max(everything))
    high = max(high, low + 1)

    def x(index: int) -> float:
        return _LEFT + (index + 0.5) * (_WIDTH - _LEFT - _RIGHT) / len(told)

    def y(value: float) -> float:
        return _TOP + (high - math.log10(value)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    marks = []
    for index, (time, row) in enumerate(told):
        marks.append(
            f"<g><title>timestep {time:g}: from {row[0]:.2g} to {row[-1]:.2g} in {len(row)} "
            f"{'pass' if len(row) == 1 else 'passes'}</title>"
            f'<line x1="{x(index):.1f}" y1="{y(row[0]):.1f}" x2="{x(index):.1f}" y2="{y(row[-1]):.1f}" class="fall"/>'
            f'<circle cx="{x(index):.1f}" cy="{y(row[0]):.1f}" r="3.5" class="first"/>'
            f'<circle cx="{x(index):.1f}" cy="{y(row[-1]):.1f}" r="3.5" class="last"/></g>'
        )
    ticks = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(10.0**power):.1f}" y2="{y(10.0**power):.1f}" class="rule"/>'
        f'<text x="{_LEFT - 6}" y="{y(10.0**power) + 3.5:.1f}" text-anchor="end">{10.0**power:g}</text>'
        for power in _powers(low, high)
    )
    shown = range(len(told)) if len(told) <= 8 else (0, len(told) // 2, len(told) - 1)
    times = "".join(
        f'<text x="{x(index):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{told[index][0]:.0f}</text>'
        for index in shown
    )
    first, last = told[0][1], told[-1][1]
    label = (
        f"Residual of {len(told)} steps on a logarithmic scale: the noisiest step falls from {first[0]:.2g} to "
        f"{first[-1]:.2g}, the one nearest the picture from {last[0]:.2g} to {last[-1]:.2g}"
    )
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{ticks}{times}'
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        "timestep, from noise to picture</text>"
        f"{''.join(marks)}</svg>"
    )


def _powers(low: int, high: int) -> Sequence[int]:
    """At most four powers of ten from low to high."""
    stride = max(1, math.ceil((high - low) / 3))
    return range(low, high + 1, stride)
