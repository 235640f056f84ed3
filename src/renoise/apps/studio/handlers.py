"""What happens when something is pressed.  Long work is followed by generators, so that it can be seen and stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from renoise import images
from renoise.apps.studio import markup, words, work
from renoise.apps.studio.captions import Guess
from renoise.apps.studio.choices import InvertChoices, Refused, grid, number, whole
from renoise.apps.studio.desk import Desk, Updates
from renoise.apps.studio.examples import examples
from renoise.apps.studio.pictures import Source, decoded, encoded, source_of
from renoise.apps.studio.sessions import Result, Session
from renoise.core.progress import Progress

if TYPE_CHECKING:
    from renoise.apps.studio.fields import Fields
    from renoise.apps.studio.offers import Offer
    from renoise.apps.studio.room import Room

__all__ = ["Handlers"]

_LOG = logging.getLogger("renoise.studio")
_AGAIN = (
    "The page was loaded anew, so it begins empty. What you downloaded is safe: open an inversion file to go on where "
    "you were."
)
_RESTARTED = (
    "The studio was started anew. What you downloaded is safe; everything else of this page is gone. Open an inversion "
    "file to go on where you were."
)


class Handlers:
    """One for each server; what belongs to a browser tab is in its session."""

    def __init__(
        self, pipe: Any, room: Room, fields: Fields, offered: list[Offer], size: tuple[int, int], run: str
    ) -> None:
        self._pipe, self._room, self._fields, self._size, self._run = pipe, room, fields, size, run
        self._desk = Desk(room, fields)
        self._lines = {offer.name: offer.line for offer in offered}
        self._usual = offered[0].name

    # the page

    def load(self, seen: str, request: gr.Request) -> Updates:
        """Begins a session for a tab; `seen` is the start of the server that this tab last saw, or ""."""
        session = self._room.sessions.open(str(request.session_hash))
        hint = "Choose a picture to begin with: yours, or one of the examples."
        if seen:
            hint = _AGAIN if seen == self._run else _RESTARTED
        key = markup.key_holder(session, self._run, self._room.options.limits)
        return {self._fields.key: key, self._fields.status: markup.say("hint", hint)}

    def unload(self, request: gr.Request) -> None:
        """The tab was closed: its work is stopped and let go."""
        self._room.sessions.close(request.session_hash)

    def preset_line(self, name: str) -> str:
        """What a preset costs and gives."""
        return f'<p class="quiet">{self._lines.get(name, "")}</p>'

    # the picture

    async def picture(self, event: gr.EventData, request: gr.Request) -> AsyncIterator[Updates]:
        """A file was dropped, pasted or chosen: a picture, or an inversion."""
        try:
            session = self._desk.session(request)
            data = session.take_upload(event.name)
            if str(event.file).lower().endswith(".safetensors"):
                open_saved = partial(work.open_saved, self._pipe, data, self._room.folder)
                async for update in self._inverting(session, open_saved, "Opening the inversion"):
                    yield update
                return
            source = await asyncio.to_thread(source_of, data, session.limits)
            yield await self._chosen(session, source, None)
        except Refused as error:
            yield self._desk.refusal(error)

    async def example(self, event: gr.EventData, request: gr.Request) -> Updates:
        """One of the examples was chosen."""
        try:
            session = self._desk.session(request)
            example = examples()[int(event.index) % len(examples())]
            return await self._chosen(session, Source(encoded(example.picture), example.picture.size), example.caption)
        except Refused as error:
            return self._desk.refusal(error)

    def refused(self, event: gr.EventData) -> Updates:
        """The page itself refused a file."""
        return self._desk.refusal(Refused(str(event.text)[:300]))

    def guess(self, event: gr.EventData) -> str:
        """A guess at the caption was chosen."""
        return str(event.caption)[:1000]

    async def _chosen(self, session: Session, source: Source, caption: str | None) -> Updates:
        """Takes a picture: says how it is fitted, and what it may show."""
        found: list[Guess] = []
        picture = decoded(source.png)
        captioner = self._room.options.captioner
        if captioner is not None:
            try:
                found = await asyncio.to_thread(captioner, picture)
            except Exception:
                _LOG.exception("the captioner failed")
        if caption is None and found:
            caption = found[0].caption
        source = Source(source.png, source.size, caption or "")
        session.source = source
        _, box = images.fit(picture, self._size)
        told = words.fitted(source.size, self._size, box)
        hint = "Check what it shows, then press Invert." if caption else "Say what it shows, then press Invert."
        return {
            self._fields.source: markup.source(session, told),
            self._fields.caption: caption or "",
            self._fields.guesses: markup.guesses(found),
            self._fields.status: markup.say("hint", hint),
            **self._desk.buttons(session),
        }

    # inverting

    async def invert(self, request: gr.Request, caption: str, preset: str, *advanced: Any) -> AsyncIterator[Updates]:
        """Inverts the chosen picture."""
        try:
            session = self._desk.session(request)
            source = session.source
            if source is None:
                raise Refused("Choose a picture first: yours, or one of the examples.")
            if not (caption or "").strip():
                raise Refused("Say what the picture shows; the model needs it to draw the picture again.")
            passes, tol, steps, strength, guidance, seed = advanced
            choices = InvertChoices(
                " ".join(caption.split()),
                None if preset == self._usual else preset,
                whole("Passes", passes),
                number("Tolerance", tol),
                whole("Steps", steps),
                number("Share of the steps", strength),
                number("Guidance", guidance),
                whole("Seed", seed),
            )

            def invert(progress: Progress) -> work.Found:
                return work.invert(self._pipe, source, choices, progress)

            async for update in self._inverting(session, invert, "Inverting"):
                yield update
        except Refused as error:
            yield self._desk.refusal(error)

    async def _inverting(
        self, session: Session, job: Callable[[Progress], work.Found], what: str
    ) -> AsyncIterator[Updates]:
        """Follows an inversion, and shows it."""
        async for update in self._desk.follow(session, job, what):
            yield update
        done = session.job
        if done is None or done.state != "done":
            yield self._desk.ended(session, done, what)
            return
        found: work.Found = done.result
        lost = session.add_inversion(found)
        scores = found.scores
        told = words.verdict(scores) + f" {scores.passes} passes, {words.duration(scores.seconds)}."
        if lost:
            told += f" To make room, the oldest inversion and its {len(lost)} edits were let go."
        yield {
            **self._desk.everything(session, []),
            self._fields.caption: found.caption,
            self._fields.status: markup.say("done", told, "Inverted."),
            self._fields.tabs: gr.update(selected="compare"),
        }

    # editing

    async def edit(self, request: gr.Request, text: str, *controls: Any) -> AsyncIterator[Updates]:
        """Makes one edit, or several, one after the other; others get their turn in between."""
        try:
            session = self._desk.session(request)
            inverted, base = session.inverted, session.base
            if inverted is None:
                raise Refused("Invert a picture first; then it can be edited as often as you like.")
            preserve, strength, guidance, push, randomness, seeds, mask, grow, feather = controls
            given = {
                "preserve": preserve or None,
                "strength": None if strength == 1 else strength,
                "guidance_scale": number("Guidance", guidance),
                "source_guidance": number("Push away", push),
                "randomness": randomness or 0.0,
                "mask": mask,
                "mask_grow": whole("Grow", grow) or 0,
                "mask_feather": whole("Soften", feather),
                "painted": session.mask if mask == "painted" else None,
            }
            asked = grid(text, seeds, given)
            made: list[Result] = []
            for count, choices in enumerate(asked, 1):
                what = "Editing" if len(asked) == 1 else f"Edit {count} of {len(asked)}"
                job = partial(work.edit, self._pipe, inverted.found, base.made if base is not None else None, choices)
                async for update in self._desk.follow(session, job, what):
                    yield update
                done = session.job
                if done is None or done.state != "done":
                    yield {**self._desk.everything(session, made), **self._desk.ended(session, done, "Editing")}
                    return
                made.append(session.add_result(choices, done.result, inverted, base))
                if count < len(asked):
                    yield self._desk.everything(session, made)
            alone = len(made) == 1
            told = "Drag the line in the picture to compare." if alone else "All of them are under “Last edits”."
            title = "One edit made." if alone else f"{len(made)} edits made."
            yield {
                **self._desk.everything(session, made),
                self._fields.status: markup.say("done", told, title),
                self._fields.tabs: gr.update(selected="compare" if alone else "grid"),
            }
        except Refused as error:
            yield self._desk.refusal(error)

    def choose(self, event: gr.EventData, request: gr.Request) -> Updates:
        """An edit of the history is looked at."""
        try:
            session = self._room.sessions.get(request.session_hash)
            result = session.restore(event.number)
        except Refused as error:
            return self._desk.refusal(error)
        views = self._desk.everything(session, None)
        return {**views, self._fields.tabs: gr.update(selected="compare"), self._fields.prompts: result.choices.prompt}

    def base(self, event: gr.EventData, request: gr.Request) -> Updates:
        """The next edits go on from an edit, or from the picture again."""
        try:
            session = self._desk.session(request)
            session.base = None if event.number == "none" else session.restore(event.number)
        except Refused as error:
            return self._desk.refusal(error)
        return self._desk.everything(session, None)

    def stop(self, request: gr.Request) -> None:
        """Stops what runs or waits for this tab."""
        try:
            self._room.sessions.get(request.session_hash).stop()
        except Refused:
            return
