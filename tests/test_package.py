"""The package as a whole: what importing it costs, what it offers, and its version."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import renoise
import renoise.core
import renoise.pipelines

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
HEAVY = ("diffusers", "transformers", "skimage", "matplotlib", "typer", "rich")


def loaded_by(program: str) -> list[str]:
    show = f"import sys\n{program}\nprint(*({{*{HEAVY!r}, 'torch'}} & sys.modules.keys()))"
    return subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.split()


def test_importing_costs_nothing_and_using_costs_torch() -> None:
    assert loaded_by("import renoise") == []
    assert loaded_by("import renoise\nrenoise.invert, renoise.models") == ["torch"]


def test_what_is_offered_exists_and_is_sorted() -> None:
    assert renoise.__all__ == sorted(renoise.__all__)
    assert all(hasattr(renoise, name) for name in renoise.__all__)


def test_what_is_offered_is_listed_and_can_be_imported_at_once() -> None:
    program = "import renoise\nassert {*renoise.__all__} < {*dir(renoise)}\nfrom renoise import *\nassert Inversion"
    assert loaded_by(program) == ["torch"]


@pytest.mark.parametrize("name", ["core.checks.LIMITS", "images.to_pil", "archive.dumps", "pipelines.measure.measure"])
def test_modules_are_reached_through_the_package(name: str) -> None:
    loaded_by(f"import renoise\nassert renoise.{name}")


def test_what_is_not_there_is_an_attribute_error() -> None:
    for module in (renoise, renoise.core, renoise.pipelines):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    assert renoise.__version__ == tomllib.loads(PROJECT.read_text())["project"]["version"]
    try:
        installed = metadata.version("renoise")
    except metadata.PackageNotFoundError:
        pytest.skip("renoise is not installed")
    assert renoise.__version__ == installed
