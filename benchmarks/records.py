"""Raw records of a benchmark: a CSV that grows by blocks of rows, and next to it a JSON that says how it was made.

A block is the result of one sampler and method, with one row per picture.  The CSV holds a block completely or not at
all, because a new file is written first and then moved over the old one.  The JSON holds what each block depends on.
The next run of the same command keeps a block unless that has changed.  Changes of the library's code are not noticed:
delete both files after such a change.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from renoise import files

__all__ = ["Records", "Row", "fingerprint", "machine", "read", "write"]

Row = Mapping[str, object]


@dataclass(frozen=True)
class Records:
    """The two files of a benchmark.

    Attributes:
        path: path of the CSV.  The JSON has the same name with another suffix.
    """

    path: Path

    def rows(self) -> list[dict[str, str]]:
        """All rows, none if there is no file yet."""
        return read(self.path) if self.path.exists() else []

    def has(self, sampler: str, method: str, depends: str) -> bool:
        """Whether this block was measured with the same dependencies."""
        return self.path.exists() and self._about()["blocks"].get(f"{sampler}: {method}") == depends

    def add(self, sampler: str, method: str, depends: str, rows: Sequence[Row]) -> None:
        """Append a block.  It replaces an older one of the same sampler and method."""
        about = self._about()
        about["blocks"][f"{sampler}: {method}"] = depends
        kept = [row for row in self.rows() if (row["sampler"], row["method"]) != (sampler, method)]
        write(self.path, [*kept, *rows])
        files.write(self.path.with_suffix(".json"), (json.dumps(about, indent=1) + "\n").encode())

    def _about(self) -> dict[str, dict[str, str]]:
        file = self.path.with_suffix(".json")
        if file.exists():
            about: dict[str, dict[str, str]] = json.loads(file.read_text())
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
        digest.update(value.detach().float().numpy().tobytes())
    return digest.hexdigest()[:8]
