"""What the page works with: the options, the sessions of its tabs, the line of work, and a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from renoise.apps.studio.captions import Captioner
from renoise.apps.studio.line import Line
from renoise.apps.studio.pictures import Limits
from renoise.apps.studio.recipes import Model
from renoise.apps.studio.sessions import Sessions

__all__ = ["Options", "Room"]


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        model: the pipeline as it was named.
        auth: (user, password) that must be given to see the page, or None.
        limits: what is taken and kept.
        captioner: guesses what a picture shows, or None for no guesses.
    """

    model: Model
    auth: tuple[str, str] | None = None
    limits: Limits = field(default_factory=Limits)
    captioner: Captioner | None = None


@dataclass(frozen=True, eq=False)
class Room:
    """What all handlers of one server share.

    Attributes:
        options: how to serve.
        sessions: what the browser tabs have.
        line: the work on the model.
        folder: for what must lie on a disk for a moment.
    """

    options: Options
    sessions: Sessions
    line: Line
    folder: Path
