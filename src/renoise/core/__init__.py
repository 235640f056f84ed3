"""The method itself: the steps of a sampler as rows of numbers, and the loops that walk them in both directions.

This package imports torch and the standard library only.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A module of this package when it is first used, so that `import renoise` is enough to reach it."""
        if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{__name__}.{name}")
