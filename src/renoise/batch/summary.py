"""How a batch went: counts, failures and dB, and how fast it goes while it runs."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["Meter", "Summary"]

_PERCENTILES = (5, 25, 50, 75, 95)
_SHOWN = 5  # errors


class Summary:
    """Sums up the rows of shards, one table after the other, in eight bytes a picture.

    Attributes:
        pictures: how many there are.
        errors: how many failed, by what was said; of more than a thousand different errors the rest counts as "others".
        first: id of the first picture that failed so, by what was said.
        seconds: time of all batches, over all workers.
        passes: network passes of the inversions, all pictures together.
        fidelity: dB of the pictures of which it was measured.
    """

    def __init__(self) -> None:
        self.pictures, self.passes, self.seconds = 0, 0, 0.0
        self.errors: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.fidelity = array("d")

    def add(self, table: Any) -> None:
        """Counts in a pyarrow table with the columns of a manifest."""
        self.pictures += len(table)
        names = ("id", "error", "fidelity", "passes", "seconds")
        for one, error, fidelity, passes, seconds in zip(*(table[name].to_pylist() for name in names), strict=True):
            if error is not None:
                known = error if error in self.errors or len(self.errors) < 1000 else "others"
                self.errors[known] += 1
                self.first.setdefault(known, one)
            else:
                self.passes += passes
                self.seconds += seconds
            if fidelity is not None:
                self.fidelity.append(fidelity)

    @property
    def failures(self) -> int:
        """How many pictures failed."""
        return self.errors.total()

    def percentiles(self) -> dict[int, float]:
        """dB at the 5th, 25th, 50th, 75th and 95th percentile; empty where nothing was measured."""
        if not self.fidelity:
            return {}
        levels = np.percentile(np.frombuffer(self.fidelity), _PERCENTILES, method="inverted_cdf")
        return {rank: float(level) for rank, level in zip(_PERCENTILES, levels, strict=True)}

    def lines(self) -> Iterator[str]:
        """What to print at the end."""
        done = self.pictures - self.failures
        yield f"{self.pictures:,} pictures: {done:,} done, {self.failures:,} failed"
        if done:
            yield f"{self.passes / done:.1f} passes and {self.seconds / done:.3f} s of a worker for each"
        if levels := self.percentiles():
            told = ", ".join(f"{rank} %: {level:.1f}" for rank, level in levels.items())
            yield f"reconstruction in dB at percentile {told}; mean {np.mean(self.fidelity):.1f}"
        for error, count in self.errors.most_common(_SHOWN):
            yield f"failed, {count:,}: {error} (first: {self.first[error]})"


class Meter:
    """Progress of a batch: how many are done, at which rate, and what time is left."""

    def __init__(self, total: int, done: int) -> None:
        """`done` pictures of `total` were there before; the rate is that of the others."""
        self.total, self.before, self.done, self.failed = total, done, done, 0
        self._started = time.monotonic()

    def add(self, pictures: int, failed: int) -> None:
        """Counts pictures as done."""
        self.done += pictures
        self.failed += failed

    def line(self) -> str:
        """What to show."""
        elapsed, new = time.monotonic() - self._started, self.done - self.before
        share = f"{self.done:,} of {self.total:,} pictures ({self.done / max(self.total, 1):.0%})"
        if not new or not elapsed:
            return share
        rate = new / elapsed
        left = _duration((self.total - self.done) / rate)
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{share}, {rate:.2f} a second, {left} left{failed}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
