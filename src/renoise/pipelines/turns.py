"""One piece of work at a time on a pipeline: while it lasts, the pipeline's scheduler may be a stand-in."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from renoise.core.checks import number, shown

__all__ = ["BUSY", "check_free", "turn", "waiting"]

BUSY = (
    "this pipeline is in the middle of an inversion or of replaying one: wait for its end, in another thread inside "
    "`with renoise.waiting(pipe):`, or make a second pipeline with the same networks, type(pipe)(**pipe.components)"
)
_changed = threading.Condition()  # guards all that follows


@dataclass
class _Desk:
    """Who has a pipeline, by number of the thread; None for nobody.

    Attributes:
        worker: has a turn, which nobody may interrupt, the thread itself neither.
        holder: waited for the pipeline, and has it to itself for one turn after the other.
    """

    worker: int | None = None
    holder: int | None = None

    def is_free_for(self, thread: int) -> bool:
        return self.worker is None and self.holder in (None, thread)


_desks: WeakKeyDictionary[Any, _Desk] = WeakKeyDictionary()


def _desk(pipe: Any) -> _Desk:
    try:
        return _desks.setdefault(pipe, _Desk())
    except TypeError:  # no weak reference to it: nothing that diffusers makes
        return _Desk()


@contextmanager
def turn(pipe: Any) -> Iterator[None]:
    """Has the pipeline to itself inside.

    Raises:
        RuntimeError: another thread, or this one, is already working on the pipeline.
    """
    with _changed:
        desk = _desk(pipe)
        _refuse_busy(desk)
        desk.worker = threading.get_ident()
    try:
        yield
    finally:
        with _changed:
            desk.worker = None
            _changed.notify_all()


def check_free(pipe: Any) -> None:
    """Refuses, by RuntimeError, a pipeline that somebody is working on."""
    with _changed:
        _refuse_busy(_desk(pipe))


def _refuse_busy(desk: _Desk) -> None:
    if not desk.is_free_for(threading.get_ident()):
        raise RuntimeError(BUSY)


@contextmanager
def waiting(pipe: Any, timeout: float | None = None) -> Iterator[None]:
    """Waits until no other thread works on a pipeline, and has it to itself inside.

        with renoise.waiting(pipe):
            inv = renoise.invert(pipe, "picture.png", "a cat")

    Without it, whoever asks for a pipeline that is in use gets an error at once.  What can be done with a free pipeline
    can be done inside, one thing after the other, and `waiting` may be entered again inside.

    Args:
        pipe: a diffusers pipeline.
        timeout: how many seconds to wait at most; None for as long as it takes.

    Raises:
        RuntimeError: this thread itself is in the middle of an inversion, or of replaying one, on this pipeline, and
            would wait for ever.
        TimeoutError: the pipeline was still in use after that time.
        TypeError, ValueError: no pipeline, or no such time.
    """
    if getattr(pipe, "scheduler", None) is None:
        raise TypeError(f"pipe={shown(pipe)} has no scheduler: pass a diffusers pipeline")
    if timeout is not None:
        remedy = " is no time to wait: pass seconds, 0 or more, or None"
        timeout = number("timeout", timeout, remedy, lambda seconds: 0 <= seconds < math.inf)
        timeout = min(timeout, threading.TIMEOUT_MAX)
    thread = threading.get_ident()
    with _changed:
        desk = _desk(pipe)
        if desk.worker == thread:
            raise RuntimeError(BUSY)
        if not _changed.wait_for(lambda: desk.is_free_for(thread), timeout):
            raise TimeoutError(f"after {timeout:g} s of waiting, {BUSY}")
        before, desk.holder = desk.holder, thread
    try:
        yield
    finally:
        with _changed:
            desk.holder = before
            _changed.notify_all()
