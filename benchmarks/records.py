"""Raw records of a bench: a CSV that grows by whole blocks of rows, and beside it a JSON that says how it was made.

A block is what one (sampler, method) gave, one row per picture.  It is in the file wholly or not at all, because files
are written aside and moved into place.  The JSON holds what each block depended on; a block is kept by the next run of
the same command unless that has changed.  A change of the library's code is not noticed: delete both files after one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Records", "Row", "fingerprint", "machine", "read", "write"]

Row = Mapping[str, object]


@dataclass(frozen=True)
class Records:
    """The two files; `path` is that of the CSV."""

    path: Path

    def rows(self) -> list[dict[str, str]]:
        return read(self.path) if self.path.exists() else []

    def has(self, sampler: str, method: str, depends: str) -> bool:
        """Whether this block was measured, with the same dependencies."""
        return self.path.exists() and self._about()["blocks"].get(f"{sampler}: {method}") == depends

    def add(self, sampler: str, method: str, depends: str, rows: Sequence[Row]) -> None:
        """Append a block, in the place of an outdated one."""
        about = self._about()
        about["blocks"][f"{sampler}: {method}"] = depends
        kept = [row for row in self.rows() if (row["sampler"], row["method"]) != (sampler, method)]
        write(self.path, [*kept, *rows])
        aside = self.path.with_suffix(".json.part")
        aside.write_text(json.dumps(about, indent=1) + "\n")
        os.replace(aside, self.path.with_suffix(".json"))

    def _about(self) -> dict[str, dict[str, str]]:
        file = self.path.with_suffix(".json")
        if file.exists():
            about: dict[str, dict[str, str]] = json.loads(file.read_text())
            return about
        return {"machine": machine(), "blocks": {}}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Row]) -> None:
    """All columns of any row, in the order in which they come up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".csv.part")
    with aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(aside, path)


def machine() -> dict[str, str]:
    """What seconds depend on."""
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
    """Eight hexadecimal digits that change with the weights."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.detach().float().numpy().tobytes())
    return digest.hexdigest()[:8]
