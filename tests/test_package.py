"""The package as a whole: what importing it costs, what it offers, and its version."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import renoise

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
HEAVY = ("diffusers", "transformers", "skimage", "matplotlib", "typer", "rich")


def test_importing_costs_torch_and_nothing_else() -> None:
    show = f"import sys, renoise; print(*({{*{HEAVY!r}, 'torch'}} & sys.modules.keys()))"
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["torch"]


def test_what_is_offered_exists_and_is_sorted() -> None:
    assert renoise.__all__ == sorted(renoise.__all__)
    assert all(hasattr(renoise, name) for name in renoise.__all__)


def test_the_version_is_that_of_the_project() -> None:
    assert renoise.__version__ == tomllib.loads(PROJECT.read_text())["project"]["version"]
    try:
        installed = metadata.version("renoise")
    except metadata.PackageNotFoundError:
        pytest.skip("renoise is not installed")
    assert renoise.__version__ == installed
