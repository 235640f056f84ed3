"""Raw records of a measurement: a CSV that grows by blocks of rows, and next to it a JSON that says how it was made.

A block is all rows with the same values in some key columns, such as one sampler and method.  The CSV holds a block
completely or not at all, because a new file is written first and then moved over the old one.  The JSON holds what each
block depends on.  The next run of the same command keeps a block unless that has changed.  Changes of the library's
code are not noticed: delete both files after such a change.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from renoise import files

__all__ = ["Records", "Row", "digest", "fingerprint", "machine", "read", "write"]

Row = Mapping[str, object]
_PATIENCE = 20  # times the writing of the files, which is the least time between two writings


@dataclass(frozen=True)
class Records:
    """The two files of a measurement.

    Attributes:
        path: path of the CSV.  The JSON has the same name with another suffix.
        keys: the columns that name a block.
    """

    path: Path
    keys: tuple[str, ...] = ("sampler", "method")

    def rows(self) -> list[dict[str, str]]:
        """All rows, none if there is no file yet."""
        return read(self.path) if self.path.exists() else []

    def has(self, depends: str, *names: str) -> bool:
        """Whether the block with these values of the key columns was measured with the same dependencies."""
        return self.blocks().get(": ".join(names)) == depends

    def blocks(self) -> dict[str, str]:
        """What each block depends on, by its values of the key columns, joined by ": "."""
        return dict(self._about()["blocks"]) if self.path.exists() else {}

    def add(self, depends: str | Mapping[str, str], rows: Sequence[Row]) -> None:
        """Append rows.  Each block among them replaces an older one of the same name.

        Args:
            depends: what the rows depend on; one text for all of them, or one for each block by its name.
            rows: one row per picture, with the key columns.
        """
        about = self._about()
        names = {self._name(row) for row in rows}
        about["blocks"].update({name: depends if isinstance(depends, str) else depends[name] for name in names})
        kept = [row for row in self.rows() if self._name(row) not in names]
        write(self.path, [*kept, *rows])
        files.write(self.path.with_suffix(".json"), (json.dumps(about, indent=1) + "\n").encode())

    @contextmanager
    def pending(self) -> Iterator[Callable[[Mapping[str, str], Sequence[Row]], None]]:
        """Like `add`, but rows of a long run wait until writing all of them takes little of the time.

        The files are written anew whenever the time since they were last written is `_PATIENCE` times what that took,
        and in the end, whatever happens.  So a process that is killed loses seconds of work, with many thousands of
        rows, or nothing, with a few.
        """
        depends: dict[str, str] = {}
        rows: list[Row] = []
        took, last = 0.0, time.perf_counter()

        def write_all() -> None:
            nonlocal took, last
            started = time.perf_counter()
            if rows:
                self.add(depends, rows)
            depends.clear()
            rows.clear()
            last = time.perf_counter()
            took = last - started

        def wait(on: Mapping[str, str], more: Sequence[Row]) -> None:
            depends.update(on)
            rows.extend(more)
            if time.perf_counter() - last >= _PATIENCE * took:
                write_all()

        try:
            yield wait
        finally:
            write_all()

    def _name(self, row: Row) -> str:
        return ": ".join(str(row[key]) for key in self.keys)

    def _about(self) -> dict[str, dict[str, Any]]:
        file = self.path.with_suffix(".json")
        if file.exists():
            about: dict[str, dict[str, Any]] = json.loads(file.read_text())
            return about
        return {"machine": machine(), "blocks": {}}


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, as texts by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV.  The columns are those of all rows, in the order of their first appearance."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    files.write(path, text.getvalue().encode())


def machine() -> dict[str, str]:
    """The machine and the software on which measured times depend."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": name,
        "threads": str(torch.get_num_threads()),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def fingerprint(module: torch.nn.Module) -> str:
    """Eight hexadecimal digits of a hash of the weights."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def digest(*parts: object) -> str:
    """Sixteen hexadecimal digits of a hash of texts and bytes, such as all that a result depends on."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()[:16]
