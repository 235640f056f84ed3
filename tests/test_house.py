"""The house: which way imports point, what the core may know, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 300


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            yield str(node.module)


def test_imports_point_one_way() -> None:
    """The contracts of pyproject.toml, by import-linter; in a process of its own, since it sets up logging."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sources("src/renoise/core"), ids=lambda path: path.stem)
def test_the_core_imports_torch_and_the_standard_library(path: Path) -> None:
    for name in imported(path):
        top = name.split(".")[0]
        assert top == "torch" or top in sys.stdlib_module_names or name.startswith("renoise.core."), name


def test_no_file_is_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources("src", "benchmarks", "training", "comfyui")}
    assert {path.name: length for path, length in lengths.items() if length > LONGEST} == {}


def test_no_file_is_called_utils() -> None:
    assert not [path for path in sources("src", "benchmarks", "training", "tests") if "util" in path.stem]
