"""One piece of work at a time on a pipeline: while it lasts, the pipeline's scheduler may be a stand-in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["BUSY", "check_free", "turn"]

BUSY = (
    "this pipeline is in the middle of an inversion or of replaying one: wait for its end, or make a second pipeline "
    "with the same networks, type(pipe)(**pipe.components)"
)
_locks: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_adding = threading.Lock()


def _lock(pipe: Any) -> threading.Lock:
    with _adding:
        try:
            return _locks.setdefault(pipe, threading.Lock())
        except TypeError:  # no weak reference to it: nothing that diffusers makes
            return threading.Lock()


@contextmanager
def turn(pipe: Any) -> Iterator[None]:
    """Has the pipeline to itself inside.

    Raises:
        RuntimeError: another thread, or this one, is already working on the pipeline.
    """
    lock = _lock(pipe)
    if not lock.acquire(blocking=False):
        raise RuntimeError(BUSY)
    try:
        yield
    finally:
        lock.release()


def check_free(pipe: Any) -> None:
    """Refuses, by RuntimeError, a pipeline that somebody is working on."""
    if _lock(pipe).locked():
        raise RuntimeError(BUSY)
