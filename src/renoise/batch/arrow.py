"""pyarrow, imported when it is used; a batch is the only thing here that needs it."""

from __future__ import annotations

from typing import Any

__all__ = ["arrow", "parquet"]

_MISSING = 'a batch of pictures keeps its results with pyarrow: pip install "renoise[scale]", or pip install pyarrow'


def arrow() -> Any:
    """The module pyarrow.  Raises ImportError, which says what to install."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ImportError(f"{_MISSING} ({error})") from error
    return pyarrow


def parquet() -> Any:
    """The module pyarrow.parquet.  Raises ImportError likewise."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet
