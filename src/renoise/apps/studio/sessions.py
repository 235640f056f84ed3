"""What each browser tab has: its picture, its inversions, its edits.  Nothing here is shared between two of them."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field

from renoise.apps.studio.choices import EditChoices, Refused
from renoise.apps.studio.line import Job
from renoise.apps.studio.pictures import Limits, Source
from renoise.apps.studio.work import Found, Made

__all__ = ["GONE", "Inverted", "Result", "Session", "Sessions"]

GONE = (
    "This page’s work is no longer held: the studio was started anew, or the page was idle for too long. What you "
    "downloaded is safe. Reload the page, then open an inversion file or choose a picture."
)


@dataclass(frozen=True, eq=False)
class Inverted:
    """An inversion of a session; `number` counts from 1 and is never used twice."""

    number: int
    found: Found


@dataclass(frozen=True, eq=False)
class Result:
    """An edit of a session.

    Attributes:
        number: counts from 1 and is never used twice.
        inverted: the inversion that it began from.
        base: the edit that it went on from, or None for the inversion itself.
        choices: what was asked for.
        made: what came out.
    """

    number: int
    inverted: Inverted
    base: Result | None
    choices: EditChoices
    made: Made

    def chain(self) -> list[Result]:
        """All edits from the inversion to this one, in order."""
        before = self.base.chain() if self.base is not None else []
        return [*before, self]


@dataclass(eq=False)
class Session:
    """One browser tab.

    Attributes:
        limits: how much it may hold.
        key: unguessable; whoever has it may fetch the pictures of this session.
        source: the picture that was chosen last.
        inversions: oldest first.
        results: oldest first.
        base: the edit from which the next one goes on, or None for the inversion.
        chosen: the edit that is looked at.
        mask: painted (PNG), or None.
        job: what runs or waits for this session.
        touched: when something was last done, on the monotonic clock.
    """

    limits: Limits
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    source: Source | None = None
    inversions: list[Inverted] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    base: Result | None = None
    chosen: Result | None = None
    mask: bytes | None = None
    job: Job | None = None
    touched: float = field(default_factory=time.monotonic)
    _uploads: dict[str, bytes] = field(default_factory=dict)
    _inverted: int = 0
    _edited: int = 0

    @property
    def inverted(self) -> Inverted | None:
        """The inversion that edits begin from."""
        return self.inversions[-1] if self.inversions else None

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self.job is not None and not self.job.over

    def keep_upload(self, data: bytes) -> str:
        """Holds the bytes of an upload until `take_upload`; the two last ones at most."""
        name = secrets.token_hex(8)
        while len(self._uploads) >= 2:
            self._uploads.pop(next(iter(self._uploads)))
        self._uploads[name] = data
        return name

    def take_upload(self, name: str) -> bytes:
        """The bytes of an upload, which are let go.

        Raises:
            Refused: there is none of this name.
        """
        data = self._uploads.pop(str(name), None)
        if data is None:
            raise Refused("That upload did not arrive whole. Choose the file again.")
        return data

    def add_inversion(self, found: Found) -> list[Result]:
        """Makes an inversion the one to edit; returns the edits that had to go with the oldest inversion, if any."""
        self._inverted += 1
        self.inversions.append(Inverted(self._inverted, found))
        self.base = self.chosen = None
        lost: list[Result] = []
        while len(self.inversions) > self.limits.inversions:
            oldest = self.inversions.pop(0)
            lost += [result for result in self.results if result.inverted is oldest]
        self.results = [result for result in self.results if result not in lost]
        return lost

    def add_result(self, choices: EditChoices, made: Made, inverted: Inverted, base: Result | None) -> Result:
        """Keeps an edit, and lets go of the oldest where there are too many."""
        self._edited += 1
        result = Result(self._edited, inverted, base, choices, made)
        self.results.append(result)
        self.chosen = result
        while len(self.results) > self.limits.results:
            oldest = self.results.pop(0)
            if self.base is oldest:
                self.base = None
        return result

    def result(self, number: object) -> Result:
        """The edit of this number.

        Raises:
            Refused: it is not held (any more).
        """
        for result in self.results:
            if str(result.number) == str(number):
                return result
        raise Refused("This edit is no longer held; the oldest ones make room for new ones.")

    def restore(self, number: object) -> Result:
        """Looks at an edit, and makes its inversion the one to edit."""
        result = self.result(number)
        self.chosen = result
        self.inversions.remove(result.inverted)
        self.inversions.append(result.inverted)
        return result

    def stop(self) -> None:
        """Stops what runs, and what waits."""
        if self.job is not None:
            self.job.stop()

    def close(self) -> None:
        """Stops its work and lets go of everything."""
        self.stop()
        self.inversions, self.results, self._uploads = [], [], {}
        self.source = self.base = self.chosen = self.mask = self.job = None


class Sessions:
    """The sessions of a server, by the name that the page's own framework gives each tab."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._held: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def open(self, name: str) -> Session:
        """A new session under this name; one that was there is closed, as are those idle for too long."""
        session = Session(self.limits)
        with self._lock:
            gone = [self._held.pop(name)] if name in self._held else []
            now = time.monotonic()
            idle = sorted((held.touched, other) for other, held in self._held.items() if not held.busy)
            for touched, other in idle:
                late = now - touched > self.limits.idle_minutes * 60
                if late or len(self._held) >= self.limits.sessions:
                    gone.append(self._held.pop(other))
            self._held[name] = session
        for closed in gone:
            closed.close()
        return session

    def get(self, name: str | None) -> Session:
        """The session of this name.

        Raises:
            Refused: there is none (any more).
        """
        session = self._held.get(name or "")
        if session is None:
            raise Refused(GONE)
        session.touched = time.monotonic()
        return session

    def by_key(self, key: str) -> Session | None:
        """The session that has this key, or None."""
        with self._lock:
            held = list(self._held.values())
        return next((session for session in held if secrets.compare_digest(session.key, key)), None)

    def close(self, name: str | None) -> None:
        """Closes the session of this name, where there is one."""
        with self._lock:
            session = self._held.pop(name or "", None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """Closes every session."""
        with self._lock:
            held = list(self._held.values())
            self._held.clear()
        for session in held:
            session.close()
