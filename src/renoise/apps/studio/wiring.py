"""Which handler answers which event of the page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from renoise.apps.studio.handlers import Handlers

__all__ = ["wire"]

_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": True}
# before a handler is called, masks that are still on their way to the server arrive
_ARRIVED = "async (...values) => { await window.studio.arrived(); return values; }"


def wire(page: gr.Blocks, fields: Any, handlers: Handlers) -> None:
    """Connects the fields of a page, inside its context."""
    views = [
        fields.stage, fields.grid, fields.report, fields.history, fields.base, fields.painter, fields.take,
        fields.status, fields.tabs, fields.invert, fields.edit, fields.stop,
    ]  # fmt: skip
    page.load(
        handlers.load,
        fields.key,
        [fields.key, fields.status],
        js="() => [window.studio.seen()]",
        **_QUIET,
    )
    page.unload(handlers.unload)
    about = [fields.source, fields.caption, fields.guesses]
    fields.source.picture(handlers.picture, None, [*about, *views], **_QUIET)
    fields.source.example(handlers.example, None, [*about, *views], **_QUIET)
    fields.source.refused(handlers.refused, None, fields.status, **_QUIET)
    fields.guesses.guess(handlers.guess, None, fields.caption, **_QUIET)
    fields.preset.change(handlers.preset_line, fields.preset, fields.preset_line, **_QUIET)
    inverting = [fields.caption, fields.preset, *fields.advanced]
    gr.on(
        [fields.invert.click, fields.caption.submit],
        handlers.invert,
        inverting,
        [fields.caption, *views],
        **_QUIET,
    )
    editing = [fields.prompts, *fields.controls]
    gr.on([fields.edit.click, fields.prompts.submit], handlers.edit, editing, views, js=_ARRIVED, **_QUIET)
    fields.stop.click(handlers.stop, None, None, **_QUIET)
    for tiles in (fields.history, fields.grid):
        tiles.choose(handlers.choose, None, [fields.prompts, *views], **_QUIET)
    for place in (fields.history, fields.base):
        place.base(handlers.base, None, views, **_QUIET)
