"""What is on the page, by name: made by the page, and read and written by its handlers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Fields"]


@dataclass(frozen=True)
class Fields:
    """Everything on the page that a handler reads or writes, by what it is."""

    key: Any
    source: Any
    caption: Any
    guesses: Any
    preset: Any
    preset_line: Any
    advanced: tuple[Any, ...]
    invert: Any
    stop: Any
    status: Any
    tabs: Any
    stage: Any
    grid: Any
    report: Any
    history: Any
    base: Any
    prompts: Any
    controls: tuple[Any, ...]
    painter: Any
    edit: Any
    take: Any
