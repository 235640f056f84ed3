"""What all handlers share: the session of a request, work that is followed, and what the page shows afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from renoise.apps.studio import markup, views
from renoise.apps.studio.choices import Refused
from renoise.apps.studio.line import Job
from renoise.apps.studio.sessions import Result, Session
from renoise.core.progress import Progress

if TYPE_CHECKING:
    from renoise.apps.studio.fields import Fields
    from renoise.apps.studio.room import Room

__all__ = ["Desk", "Updates"]

Updates = dict[Any, Any]
"""New values of fields of the page."""
_TICK = 0.12
"""Seconds between two looks at a job."""
_TELLING = 5
"""Looks between two updates of the page: a browser on a busy machine falls behind where they are many."""
_TOLD = (ValueError, TypeError)
"""Errors whose text is written for users."""
_BUSY = "Something is being worked on for this page. Wait for its end, or press Stop."


class Desk:
    """Between the sessions of a server and the fields of its page."""

    def __init__(self, room: Room, fields: Fields) -> None:
        self.room, self.fields = room, fields

    def session(self, request: gr.Request) -> Session:
        """The session of a request, with nothing running."""
        session = self.room.sessions.get(request.session_hash)
        if session.busy:
            raise Refused(_BUSY)
        return session

    async def follow(self, session: Session, job: Callable[[Progress], Any], what: str) -> AsyncIterator[Updates]:
        """Puts work into the line and tells how it goes, until it is over; stops it where the tab is closed."""
        if session.busy:
            raise Refused(_BUSY)
        running = session.job = self.room.line.add(job)
        try:
            told, ticks = self.progress(running, what), 0
            yield {**self.buttons(session), self.fields.status: told}
            while not running.over:
                await asyncio.sleep(_TICK)
                ticks += 1
                now = self.progress(running, what)
                if ticks % _TELLING == 0 and now != told and not running.over:
                    told = now
                    yield {self.fields.status: told}
        finally:
            running.stop()

    def progress(self, job: Job, what: str) -> str:
        """How far a job is, or its place in the queue."""
        return markup.progress(job, what, self.room.line.place(job))

    def ended(self, session: Session, job: Job | None, what: str) -> Updates:
        """What to say of work without a result."""
        if job is None or job.state in ("stopped", "waiting"):
            passes = 0 if job is None else job.progress.passes
            after = f" after {passes} of {job.progress.total} passes" if job is not None and passes else ""
            said = markup.say("hint", f"{what} was stopped{after}. Everything that you had is still here.", "Stopped.")
        elif isinstance(job.error, _TOLD):
            said = markup.say("error", str(job.error), "That cannot work.")
        elif isinstance(job.error, MemoryError) or "out of memory" in str(job.error).lower():
            said = markup.say("error", "There is not enough memory for this. Try fewer steps, or a smaller model.")
        else:
            said = markup.say("error", "Something went wrong inside. The studio’s own log says more.")
        return {**self.buttons(session), self.fields.status: said}

    def refusal(self, error: Refused) -> Updates:
        """Says why something cannot be done."""
        return {self.fields.status: markup.say("error", str(error))}

    def buttons(self, session: Session) -> Updates:
        """Which buttons can be pressed now."""
        busy, fields = session.busy, self.fields
        return {
            fields.invert: gr.update(interactive=session.source is not None and not busy),
            fields.edit: gr.update(interactive=session.inverted is not None and not busy),
            fields.stop: gr.update(interactive=busy),
        }

    def everything(self, session: Session, last: list[Result] | None) -> Updates:
        """All parts of the page that depend on the session; `last` are the edits that were asked for together."""
        parts = views.everything(session, self.room.options.model, last or [])
        if last is None:
            parts.pop("grid")
        return {**{getattr(self.fields, name): part for name, part in parts.items()}, **self.buttons(session)}
