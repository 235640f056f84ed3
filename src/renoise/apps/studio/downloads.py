"""The files of a session by name: made when they are asked for, and never written to a disk."""

from __future__ import annotations

import re

from PIL import Image

from renoise.apps.studio.pictures import decoded, encoded
from renoise.apps.studio.sessions import Inverted, Result, Session
from renoise.figures import Panel, comparison, sheet

__all__ = ["download"]

PNG, INVERSION = "image/png", "application/octet-stream"


def download(session: Session, name: str) -> tuple[bytes, str] | None:
    """The bytes of a file and their kind, or None where the session has no such file.

    Names are source.png, inversion-N.safetensors, inversion-N-original.png (-ceiling, -reconstruction), edit-N.png,
    edit-N-mask.png, edit-N-painted.png, edit-N-strip.png, and sheet.png, the contact sheet of all edits.
    """
    if name == "source.png":
        return None if session.source is None else (session.source.png, PNG)
    if name == "sheet.png":
        return _sheet(session.results)
    part = re.fullmatch(r"(inversion|edit)-(\d{1,9})(?:-(\w+))?\.(png|safetensors)", name)
    if part is None:
        return None
    kind, number, what, ending = part.groups()
    if kind == "inversion":
        held = next((inverted for inverted in session.inversions if inverted.number == int(number)), None)
        return None if held is None else _of_inversion(held, what, ending)
    result = next((result for result in session.results if result.number == int(number)), None)
    return None if result is None or ending != "png" else _of_edit(result, what)


def _of_inversion(inverted: Inverted, what: str | None, ending: str) -> tuple[bytes, str] | None:
    found = inverted.found
    if ending == "safetensors":
        return (found.saved(), INVERSION) if what is None else None
    pictures = {"original": found.original, "ceiling": found.ceiling, "reconstruction": found.reconstruction}
    if what == "source" and found.source is not None:
        return found.source.png, PNG
    return (pictures[what], PNG) if what in pictures else None


def _of_edit(result: Result, what: str | None) -> tuple[bytes, str] | None:
    made: dict[str | None, bytes | None] = {
        None: result.made.picture,
        "mask": result.made.mask,
        "painted": result.choices.painted,
    }
    if what == "strip":
        return encoded(_strip(result)), PNG
    data = made.get(what)
    return None if data is None else (data, PNG)


def _strip(result: Result) -> Image.Image:
    found = result.inverted.found
    scores = found.scores
    panels = [
        Panel(decoded(found.original), "original", found.caption),
        Panel(decoded(found.reconstruction), "reconstruction", f"{scores.fidelity:.1f} dB\n{scores.passes} passes"),
    ]
    for edit in result.chain():
        panels.append(Panel(decoded(edit.made.picture), f"edit {edit.number}", edit.choices.prompt))
    return comparison(panels)


def _sheet(results: list[Result]) -> tuple[bytes, str] | None:
    if not results:
        return None
    pictures = [decoded(result.made.picture) for result in results]
    captions = [f"{result.number}: {result.choices.prompt}" for result in results]
    return encoded(sheet(pictures, captions, columns=6)), PNG
