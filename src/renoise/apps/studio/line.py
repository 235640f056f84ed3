"""One piece of work at a time on a model, in the order in which it was asked for.

A piece of work is a function that takes a `renoise.Progress`.  It runs in a thread of its own, which lives as long as
there is work, so that nothing is left when the last one is done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from renoise.core.progress import Cancelled, Progress

__all__ = ["Job", "Line"]

_LOG = logging.getLogger("renoise.studio")
State = Literal["waiting", "running", "done", "failed", "stopped"]


class Job:
    """One piece of work: where it stands, and how to stop it.

    Attributes:
        state: waiting, running, done, failed or stopped.
        progress: counts its passes.
        result: what the work returned, once it is done.
        error: what it raised, once it has failed.
    """

    def __init__(self, work: Callable[[Progress], Any]) -> None:
        self.state: State = "waiting"
        self.progress = Progress(self._told)
        self.result: Any = None
        self.error: BaseException | None = None
        self._work: Callable[[Progress], Any] | None = work
        self._stage, self._began = "", 0.0

    @property
    def over(self) -> bool:
        """Whether it has ended, with or without a result, or was stopped before it began."""
        return self.state in ("done", "failed", "stopped") or (self.state == "waiting" and self.progress.cancelled)

    def stop(self) -> None:
        """Ends it before its next pass, or before it begins.  What is over stays as it is."""
        self.progress.cancel()

    def seconds_left(self) -> float | None:
        """How long the present stage will still take at the pace so far, or None before its first pass."""
        done, total = self.progress.passes, self.progress.total
        if not done or not self._began:
            return None
        return (time.monotonic() - self._began) / done * max(0, total - done)

    def run(self) -> None:
        """Does the work; never raises."""
        work, self._work = self._work, None  # what the work holds on to is let go with it
        assert work is not None
        self.state = "running"
        try:
            if self.progress.cancelled:
                raise Cancelled("stopped before it began")
            self.result = work(self.progress)
            self.state = "done"
        except Cancelled:
            self.state = "stopped"
        except BaseException as error:
            if not isinstance(error, (ValueError, TypeError)):  # these say all in their text
                _LOG.error("a piece of work failed", exc_info=error)
            self.error = error.with_traceback(None)  # frames hold tensors
            self.error.__cause__ = self.error.__context__ = None
            self.state = "failed"

    def drop(self) -> None:
        """Marks work that never began as stopped."""
        self._work, self.state = None, "stopped"

    def _told(self, progress: Progress) -> None:
        if progress.passes == 0:
            self._began = time.monotonic()


class Line:
    """Jobs in the order of their arrival, of which one runs.

    Attributes:
        served: how many jobs have run so far.
    """

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.served = 0

    def add(self, work: Callable[[Progress], Any]) -> Job:
        """Puts a piece of work at the end of the line.

        Raises:
            RuntimeError: the line is closed.
        """
        job = Job(work)
        with self._lock:
            if self._closed:
                raise RuntimeError("the studio is being closed; start it anew with: renoise studio")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="renoise-studio-work", daemon=True)
                self._thread.start()
        return job

    def place(self, job: Job) -> int:
        """How many jobs come before this one: 0 where it runs, is next on a free model, or is over."""
        with self._lock:
            ahead = [other for other in self._waiting if not other.progress.cancelled or other is job]
            if job not in ahead:
                return 0
            return ahead.index(job) + (self._running is not None)

    def close(self, timeout: float = 60.0) -> None:
        """Stops what runs, drops what waits, and waits for the thread to end.

        Args:
            timeout: seconds to wait at most; a pass cannot be interrupted.
        """
        with self._lock:
            self._closed = True
            for job in self._waiting:
                job.drop()
            self._waiting.clear()
            running, thread = self._running, self._thread
        if running is not None:
            running.stop()
        if thread is not None:
            thread.join(timeout)

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = self._thread = None
                    return
                job = self._running = self._waiting.popleft()
            job.run()
            self.served += 1
